"""What the kernels see: real images, or their edges."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Inputs

_LAPLACIAN = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])


def prepared(images: Tensor, inputs: Inputs) -> Tensor:
    """Grey images as numbers of mean square 1.

    Args:
        images: (images, 1, height, width), uint8.
        inputs: "images" for these, their mean subtracted; "edges" for their Laplacian.

    Returns:
        (images, height, width), float32.
    """
    values = images.float()
    values = values - values.mean() if inputs == "images" else F.conv2d(values, _LAPLACIAN[None, None], padding=1)
    return (values / values.square().mean().sqrt())[:, 0]


def correlated_cells(values: Tensor) -> int:
    """How many cells apart the values of images are alike: the largest shift up to which they correlate above 0.5.

    Args:
        values: (images, height, width), of mean 0.
    """
    power = values.square().mean()
    for cells in range(1, values.shape[-1]):
        along_rows = (values[:, :, cells:] * values[:, :, :-cells]).mean()
        along_columns = (values[:, cells:] * values[:, :-cells]).mean()
        if (along_rows + along_columns) / 2 <= power / 2:
            return cells - 1
    return values.shape[-1] - 1


def drawn(values: Tensor, count: int, kernels: int, random: np.random.Generator) -> Tensor:
    """Images drawn at random for each of several kernels, (count, kernels, height, width)."""
    return values[torch.from_numpy(random.integers(0, len(values), (count, kernels)))]
