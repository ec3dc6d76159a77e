"""Learned delays for spiking networks and sequences."""

from .checkpoints import from_snn_delays
from .layers import AxonalDelays, DelayLayer, DendriticDelays, SynapticDelays
from .rounding import round_delays_, rounded_delays
from .schedule import SigmaSchedule
from .state import DelayState
from .table import SynapseTable, delay_matrix

__all__ = [
    "AxonalDelays",
    "DelayLayer",
    "DelayState",
    "DendriticDelays",
    "SigmaSchedule",
    "SynapseTable",
    "SynapticDelays",
    "delay_matrix",
    "from_snn_delays",
    "round_delays_",
    "rounded_delays",
]
