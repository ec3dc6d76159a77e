"""Dilated Convolution with Learnable Spacings (DCLS) for PyTorch."""

from typing import TYPE_CHECKING

from . import native
from .conversion import ConversionReport, FuseReport, convert, fuse
from .conversion.official import to_official
from .delays.schedule import SigmaSchedule
from .nn import Dcls1d, Dcls2d, Dcls3d, DclsTranspose1d, DclsTranspose2d, DclsTranspose3d
from .ops.caches import clear_caches
from .ops.conv.api import (
    explain_method,
    large_kernel_conv,
    large_kernel_conv1d,
    large_kernel_conv2d,
    large_kernel_conv3d,
    large_kernel_conv_transpose,
    large_kernel_conv_transpose1d,
    large_kernel_conv_transpose2d,
    large_kernel_conv_transpose3d,
)
from .ops.dcls_conv import (
    dcls_conv,
    dcls_conv1d,
    dcls_conv2d,
    dcls_conv3d,
    dcls_conv_transpose,
    dcls_conv_transpose1d,
    dcls_conv_transpose2d,
    dcls_conv_transpose3d,
)
from .ops.kernel import construct_kernel
from .optim import clamp_positions_, param_groups, repulsion_loss
from .profiles import Profile

if TYPE_CHECKING:
    from .models.official import load_official

__version__ = "0.1.0"

__all__ = [
    "ConversionReport",
    "Dcls1d",
    "Dcls2d",
    "Dcls3d",
    "DclsTranspose1d",
    "DclsTranspose2d",
    "DclsTranspose3d",
    "FuseReport",
    "Profile",
    "SigmaSchedule",
    "__version__",
    "clamp_positions_",
    "clear_caches",
    "construct_kernel",
    "convert",
    "dcls_conv",
    "dcls_conv1d",
    "dcls_conv2d",
    "dcls_conv3d",
    "dcls_conv_transpose",
    "dcls_conv_transpose1d",
    "dcls_conv_transpose2d",
    "dcls_conv_transpose3d",
    "explain_method",
    "fuse",
    "large_kernel_conv",
    "large_kernel_conv1d",
    "large_kernel_conv2d",
    "large_kernel_conv3d",
    "large_kernel_conv_transpose",
    "large_kernel_conv_transpose1d",
    "large_kernel_conv_transpose2d",
    "large_kernel_conv_transpose3d",
    "load_official",
    "native",
    "param_groups",
    "repulsion_loss",
    "to_official",
]


def __getattr__(name: str) -> object:
    # Needs timm, which `import torchdcls` does not.
    if name == "load_official":
        from .models.official import load_official

        return load_official
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
