"""Which compiled kernels are loaded, what switches them, and what is said of it."""

import subprocess
import sys

import pytest
import torch
from cases import needs_kernels

import torchdcls
from torchdcls.ops.caches import clear_caches
from torchdcls.ops.native import library, missing

ASK = "import torchdcls; print(torchdcls.native.status())"


def status(value, monkeypatch):
    monkeypatch.setenv(library.SWITCH, value)
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


@needs_kernels
def test_says_for_which_instruction_set_they_are_in_use(monkeypatch):
    assert status("1", monkeypatch).startswith("compiled kernels for ")
    assert status("1", monkeypatch).endswith(", on the threads of torch")


def test_can_be_turned_off(monkeypatch):
    assert status("0", monkeypatch) == "no compiled kernels: TORCHDCLS_NATIVE=0 turns them off"


@needs_kernels
def test_an_instruction_set_can_be_named(monkeypatch):
    said = status("mmx", monkeypatch)
    assert said.startswith("no compiled kernels: TORCHDCLS_NATIVE is expected to be 0, 1 or one of ")
    assert said.endswith(", got 'mmx'")
    for name in said.partition("one of ")[2].partition(", got")[0].split(", "):
        assert status(name, monkeypatch) == f"compiled kernels for {name}, on the threads of torch"


@pytest.fixture
def reloaded():
    """Loads anew what a test changes, and again afterwards."""
    clear_caches()
    yield
    clear_caches()


def test_says_that_there_was_no_compiler(monkeypatch, tmp_path, reloaded):
    monkeypatch.setattr(library, "FILE", tmp_path / "absent.so")
    monkeypatch.setenv(library.SWITCH, "1")
    assert missing() == "no compiled kernels: this installation was made without a C compiler"
    input, weight = torch.randn(1, 2, 40, 40), torch.randn(2, 1, 31, 31)
    with pytest.raises(ValueError, match="method: 'native' cannot run this call: no compiled kernels: this install"):
        torchdcls.large_kernel_conv2d(input, weight, padding=15, groups=2, method="native")
    made = torchdcls.large_kernel_conv2d(input, weight, padding=15, groups=2)
    torch.testing.assert_close(
        made, torch.nn.functional.conv2d(input, weight, padding=15, groups=2), rtol=1e-4, atol=1e-4
    )


def test_a_library_of_another_version_is_not_used(monkeypatch, reloaded):
    monkeypatch.setattr(library, "INTERFACE", -1)
    monkeypatch.setenv(library.SWITCH, "1")
    if library.FILE.exists():
        assert missing() == "no compiled kernels: the library is of another version; reinstall the package"


def test_says_what_the_loader_says(monkeypatch, tmp_path, reloaded):
    (tmp_path / "broken.so").write_bytes(b"no library")
    monkeypatch.setattr(library, "FILE", tmp_path / "broken.so")
    monkeypatch.setenv(library.SWITCH, "1")
    assert missing().startswith("no compiled kernels: the library cannot be loaded (")
