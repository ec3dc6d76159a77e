"""Learned delays for spiking networks and sequences."""

from .layers import AxonalDelays, DelayLayer, DendriticDelays, SynapticDelays
from .state import DelayState

__all__ = ["AxonalDelays", "DelayLayer", "DelayState", "DendriticDelays", "SynapticDelays"]
