"""The public names: a change of this list is a change that users see."""

import inspect

import pytest
import torch

import torchdcls
from torchdcls import testing

PUBLIC = """
    ConversionReport Dcls1d Dcls2d Dcls3d DclsTranspose1d DclsTranspose2d DclsTranspose3d FuseReport Profile
    SigmaSchedule __version__ clamp_positions_ clear_caches construct_kernel convert
    dcls_conv dcls_conv1d dcls_conv2d dcls_conv3d
    dcls_conv_transpose dcls_conv_transpose1d dcls_conv_transpose2d dcls_conv_transpose3d
    explain_method fuse
    large_kernel_conv large_kernel_conv1d large_kernel_conv2d large_kernel_conv3d
    large_kernel_conv_transpose large_kernel_conv_transpose1d large_kernel_conv_transpose2d
    large_kernel_conv_transpose3d
    load_official native param_groups repulsion_loss to_official
"""
GENERIC = ["dcls_conv", "dcls_conv_transpose", "large_kernel_conv", "large_kernel_conv_transpose"]


def test_public_names():
    assert torchdcls.__all__ == PUBLIC.split()
    assert all(hasattr(torchdcls, name) for name in torchdcls.__all__)
    assert testing.__all__ == ["reference_convolution", "reference_kernel"]


@pytest.mark.parametrize("name", GENERIC)
def test_numbered_functions_take_what_the_generic_one_takes(name):
    generic = getattr(torchdcls, name)
    assert "Args:" in generic.__doc__ and "Raises:" in generic.__doc__
    for dims in (1, 2, 3):
        numbered = getattr(torchdcls, f"{name}{dims}d")
        assert (numbered.__name__, inspect.signature(numbered)) == (f"{name}{dims}d", inspect.signature(generic))
        assert f"`{name}`" in numbered.__doc__


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", ["dcls_conv", "dcls_conv_transpose"])
def test_elements_say_how_many_axes_there_are(name, dims):
    def call(function):
        elements = torch.ones(2, 2, 3), torch.zeros(dims, 2, 2, 3), torch.ones(dims, 2, 2, 3)
        return function(torch.ones(1, 2, *(6,) * dims), *elements, dilated_kernel_size=(3, 4, 2)[:dims])

    assert torch.equal(call(getattr(torchdcls, name)), call(getattr(torchdcls, f"{name}{dims}d")))
    others = [getattr(torchdcls, f"{name}{other}d") for other in (1, 2, 3) if other != dims]
    for other in others:
        with pytest.raises(ValueError, match=rf"^position: expected shape .* in .-D, got \({dims}, 2, 2, 3\)"):
            call(other)
