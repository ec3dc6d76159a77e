"""Layers whose elements are computed: by torch's parametrizations, others, and the hooks of older functions."""

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune


class Halved(nn.Module):
    """Half of what it is made of, and so invertible."""

    def forward(self, source):
        return source / 2

    def right_inverse(self, value):
        return value * 2


class Bounded(nn.Module):
    """Inside of a radius; it cannot be inverted."""

    def __init__(self, radius=3.0):
        super().__init__()
        self.register_buffer("radius", torch.tensor(radius))

    def forward(self, source):
        return self.radius * torch.tanh(source / self.radius)


class Shifted(nn.Module):
    """With a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.full((1, 4, 1, 1), 0.30078125 + 2**-12))  # no number of bfloat16

    def forward(self, source):
        return source + self.shift


def by_hand(name, make):
    def computed(layer):
        parametrize.register_parametrization(layer, name, make())
        return layer

    return computed


PARAMETRIZED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "halved weight": by_hand("weight", Halved),
    "halved position": by_hand("position", Halved),
    "bounded position": by_hand("position", Bounded),
    "shifted position": by_hand("position", Shifted),
    "weight_norm of position": lambda layer: parametrizations.weight_norm(layer, "position"),
    "halved sigma": by_hand("sigma", Halved),
    "halved bias": by_hand("bias", Halved),
}
BY_HOOKS = {
    "old weight_norm": nn.utils.weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "old weight_norm of position": lambda layer: nn.utils.weight_norm(layer, "position"),
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "pruned position": lambda layer: prune.l1_unstructured(layer, "position", 0.5),
}
