"""Learned delays for spiking networks and sequences."""

from .layers import AxonalDelays, DelayLayer, DendriticDelays, SynapticDelays
from .rounding import round_delays_, rounded_delays
from .schedule import SigmaSchedule
from .state import DelayState

__all__ = [
    "AxonalDelays",
    "DelayLayer",
    "DelayState",
    "DendriticDelays",
    "SigmaSchedule",
    "SynapticDelays",
    "round_delays_",
    "rounded_delays",
]
