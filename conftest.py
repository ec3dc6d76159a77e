"""Of every run of pytest: one thread for each library, and which tests are fast."""

import os
from collections import Counter
from pathlib import Path

import pytest

# Libraries of linear algebra start a thread for each core, which wait for each other for minutes where other processes
# run. They read this when they are imported; processes that tests start inherit it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

_ROOT = Path(__file__).parent
# `pytest -m fast` is the first cases of each test; left out are folders and files that take minutes, and what torch
# compiles.
_FIRST_CASES = 3
_SLOW = (
    *(
        "tests/benchmarks",
        "tests/deployment",
        "tests/docs",
        "tests/models",
        "tests/torchdcls_train",
        "tests/studies",
    ),
    *("tests/cli/test_export_command.py", "tests/conversion/test_warm_start.py", "tests/inspection/test_inspect.py"),
    *("tests/ops/conv/triton", "tests/ops/triton"),
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "compiles: torch.compile traces this test, with nothing compiled before it")
    config.addinivalue_line("markers", "fast: the first cases of tests that take no minutes")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = [_ROOT / name for name in _SLOW]
    cases: Counter[str] = Counter()
    for item in items:
        if item.get_closest_marker("compiles") is None and not any(item.path.is_relative_to(path) for path in slow):
            test = item.nodeid.partition("[")[0]
            cases[test] += 1
            if cases[test] <= _FIRST_CASES:
                item.add_marker("fast")
