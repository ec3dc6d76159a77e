"""What every test runs under: a fixed seed, one thread, and memory that is NaN until it is written."""

import sys

import pytest
import torch

# torch lists what a device context acts on at its first use; it must not find a `torch.empty` that a test replaced.
with torch.device("meta"):
    torch.empty(0)


@pytest.fixture(autouse=True)
def _same_conditions() -> None:
    torch.manual_seed(0)
    # The tensors are small: two threads wait for each other more than they help, several times over on a busy machine.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _poisoned_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uninitialised floating-point memory is NaN for calls from the package, so that reading it shows."""
    if request.node.get_closest_marker("compiles"):
        torch._dynamo.reset()
        return

    def poisoned(make):
        def make_poisoned(*args, **kwargs):
            tensor = make(*args, **kwargs)
            asked_by = sys._getframe(1).f_globals.get("__name__", "")
            if asked_by.partition(".")[0] == "torchdcls" and tensor.is_floating_point():
                with torch.no_grad():
                    tensor.fill_(float("nan"))
            return tensor

        return make_poisoned

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch, "empty_strided"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
