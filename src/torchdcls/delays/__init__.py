"""Learned delays for spiking networks and sequences."""

from .checkpoints import from_snn_delays
from .kinds import AxonalDelays, DendriticDelays, SynapticDelays
from .layer import DelayLayer
from .nir_graph import from_nir, to_nir
from .recurrent import RecurrentDelays, RecurrentState
from .rounding import round_delays_, rounded_delays
from .schedule import SigmaSchedule
from .sparsity import integer_loss, sparsify_delays_, sparsify_weights_
from .state import DelayState
from .table import SynapseTable, delay_matrix

__all__ = [
    "AxonalDelays",
    "DelayLayer",
    "DelayState",
    "DendriticDelays",
    "RecurrentDelays",
    "RecurrentState",
    "SigmaSchedule",
    "SynapseTable",
    "SynapticDelays",
    "delay_matrix",
    "from_nir",
    "from_snn_delays",
    "integer_loss",
    "round_delays_",
    "rounded_delays",
    "sparsify_delays_",
    "sparsify_weights_",
    "to_nir",
]
