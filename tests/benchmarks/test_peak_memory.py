"""Peaks of memory, of processes that take known amounts; a few pages more or less are the interpreter's."""

import subprocess
import sys

import pytest

from benchmarks import conv
from benchmarks.memory import in_a_process
from benchmarks.record import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")

MIB = 2**20


def printed(code: str) -> int:
    """The number that a fresh process prints."""
    source = f"import torch\nfrom benchmarks.memory import peak_beyond_start, peak_of_this_process\n{code}"
    return int(subprocess.run([sys.executable, "-c", source], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


@pytest.mark.parametrize("mib", [64, 256])
def test_what_is_taken_and_freed_counts(mib: int) -> None:
    peak = printed(f"print(peak_beyond_start(lambda: torch.ones({mib} * 2**18).sum()))")
    assert (mib - 4) * MIB <= peak < (mib + 24) * MIB


def test_what_was_held_before_does_not_count() -> None:
    peak = printed("held = torch.ones(2**27)\nprint(peak_beyond_start(lambda: torch.ones(2**24).sum()))")
    assert 60 * MIB <= peak < 88 * MIB


def test_what_was_taken_and_freed_before_does_not_count() -> None:
    """Pieces of that size go back to the system."""
    peak = printed("torch.ones(2**27).sum()\nprint(peak_beyond_start(lambda: torch.ones(2**24).sum()))")
    assert 60 * MIB <= peak < 88 * MIB


def test_the_largest_of_several_runs_counts() -> None:
    peak = printed(
        "sizes = iter([2**24, 2**26, 2**24])\nprint(peak_beyond_start(lambda: torch.ones(next(sizes)).sum(), times=3))"
    )
    assert 252 * MIB <= peak < 280 * MIB


def test_a_process_of_its_own_gives_json() -> None:
    assert in_a_process("math", "fsum", [1.5, 2.0]) == 3.5
    with pytest.raises(subprocess.CalledProcessError):
        in_a_process("math", "sqrt", -1)


def test_a_large_map_stays_within_four_gib() -> None:
    """1 GiB in, 1 GiB out, and a spectrum of the whole map would take another 2."""
    ran = in_a_process("benchmarks.conv", "run_large_map")
    assert conv.PROBLEMS["large map"] == "forward of a 101x101 kernel on (1, 64, 2048, 2048)"
    assert 2 * 1024 * MIB < ran["peak_bytes"] < 4 * 1024 * MIB
    assert ran["seconds"] > 0
