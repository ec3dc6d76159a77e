"""What `help` shows of the layers that users make."""

import inspect
import pydoc

import pytest

from torchdcls import Dcls1d, Dcls2d, Dcls3d, DclsTranspose1d, DclsTranspose2d, DclsTranspose3d

LAYERS = [Dcls1d, Dcls2d, Dcls3d, DclsTranspose1d, DclsTranspose2d, DclsTranspose3d]


@pytest.mark.parametrize("layer", LAYERS)
def test_help_of_a_layer_shows_every_argument_and_attribute(layer):
    """Once, where `__init__` is written: readers of the source, such as editors, find it there too."""
    lines = [line.strip(" |") for line in pydoc.plain(pydoc.render_doc(layer)).splitlines()]
    told = {name for line in lines if ": " in line for name in line.partition(": ")[0].split(", ")}
    arguments = set(inspect.signature(layer).parameters)
    assert {"in_channels", "kernel_count", "dilated_kernel_size", "position_init"} <= arguments
    assert arguments - told == set()
    assert {"weight", "position", "sigma", "bias"} <= told
    assert "Attributes:" in lines and "Raises:" in lines
    assert inspect.getdoc(layer.__init__).count("dilated_kernel_size: Size of the dense kernel, odd or even") == 1
