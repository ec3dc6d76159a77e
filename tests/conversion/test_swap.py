"""Modules in the place of others."""

from torch import nn

from torchdcls.conversion.swap import swap_modules_


def test_every_place_of_a_module_is_taken():
    """Twice in one parent, once in another that hangs at two places, and inside a module that goes itself."""
    old, new, outer = nn.ReLU(), nn.GELU(), nn.Sequential()
    inner = nn.Sequential(old)
    outer.append(nn.Sequential(old))
    model = nn.Sequential(old, old, inner, inner, outer)
    plain = nn.Identity()
    swap_modules_(model, {old: new, outer: plain})
    assert list(model) == [new, new, inner, inner, plain]
    assert list(inner) == list(outer[0]) == [new]


def test_a_model_itself_stays():
    model = nn.Sequential(nn.ReLU())
    swap_modules_(model, {model: nn.Identity()})
    assert [name for name, _ in model.named_modules()] == ["", "0"]
