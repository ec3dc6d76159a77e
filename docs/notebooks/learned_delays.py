# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Learned delays
#
# Every event makes 16 neurons spike, each some time steps too early. A layer with one delay for each neuron learns to
# delay their spikes, so that all of them arrive at the time of the event.

# %% tags=["install"]
# %pip install --quiet "torchdcls[train]"

# %%
import matplotlib.pyplot as plt
import torch

from torchdcls import param_groups
from torchdcls.delays import AxonalDelays, SigmaSchedule, rounded_delays
from torchdcls.plots import draw_raster

torch.manual_seed(0)
NEURONS, STEPS, MAX_DELAY = 16, 120, 20
leads = torch.randint(0, MAX_DELAY + 1, (NEURONS,))


def events(batch):
    """Spikes (batch, neurons, time), and the times of the events that they belong to."""
    happens = (torch.rand(batch, 1, STEPS + MAX_DELAY) < 0.05).float()
    early = [happens[:, :, lead : lead + STEPS] for lead in leads.tolist()]
    return torch.cat(early, 1), happens[:, :, :STEPS]


# %% [markdown]
# The delays start wide, so that each gets a gradient from the times at which its spikes should arrive. `SigmaSchedule`
# then makes them narrow.

# %%
layer = AxonalDelays(NEURONS, 1, max_delay=MAX_DELAY)
with torch.no_grad():
    layer.weight.fill_(1 / NEURONS)
EPOCHS, UPDATES = 60, 10
schedule = SigmaSchedule(layer, start=8.0, end=0.23, epochs=EPOCHS * 3 // 4)
optimizer = torch.optim.Adam(param_groups(layer, lr=2e-3, weight_decay=0.0, position_lr_scale=100.0))
for _epoch in range(EPOCHS):
    for _update in range(UPDATES):
        spikes, happens = events(8)
        loss = (layer(spikes) - happens)[..., MAX_DELAY:].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()
with rounded_delays(layer):
    whole = layer.delay.flatten()
print("delays:", whole.int().tolist())
print("leads: ", leads.tolist())
right = (whole == leads).float().mean().item()
print(f"{100 * right:.0f} % of the delays are right")

# %% [markdown]
# On the left are the spikes of the neurons. On the right are the same spikes after the learned delays.

# %%
spikes, _ = events(1)
delayed = torch.stack([row.roll(int(delay)) for row, delay in zip(spikes[0], whole, strict=True)])
_figure, (before, after) = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
draw_raster(before, spikes[0])
draw_raster(after, delayed)
before.set(title="input", xlabel="time step", ylabel="neuron")
after.set(title="after the delays", xlabel="time step")
plt.show()
