"""Delays are found: by gradients, from a wide spread to a narrow one, and whole at the end."""

import pytest
import torch
import torch.nn.functional as F

from torchdcls import clamp_positions_, param_groups
from torchdcls.delays import AxonalDelays, DendriticDelays, SigmaSchedule, SynapticDelays, rounded_delays


@pytest.mark.parametrize("kind", [SynapticDelays, AxonalDelays, DendriticDelays])
@pytest.mark.parametrize("interpolation", ["gaussian", "triangle"])
def test_the_delays_of_a_teacher_are_found(kind, interpolation):
    teacher, student = (kind(2, 2, 20, interpolation=interpolation) for _ in range(2))
    with torch.no_grad():
        teacher.weight.uniform_(0.5, 1)
        student.weight.fill_(0.75)
        wanted = torch.tensor([3.0, 17.0, 9.0, 12.0])[: teacher.delay.numel()]
        teacher.delay = wanted.reshape(teacher.delay_shape)
        student.delay = 10.0
    schedule = SigmaSchedule(student, 8, 0.23, 60)
    optimizer = torch.optim.Adam(param_groups(student, 0.01, 0.0, position_lr_scale=30))
    spikes = (torch.rand(16, 2, 80) < 0.1).float()
    with rounded_delays(teacher), torch.no_grad():
        expected = teacher(spikes)
    for epoch in range(150):
        loss = F.mse_loss(student(spikes), expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clamp_positions_(student)
        schedule.step()
        if epoch == 100:
            optimizer.param_groups[-1]["lr"] /= 10
    with rounded_delays(student), torch.no_grad():
        assert torch.equal(student.delay, teacher.delay)
