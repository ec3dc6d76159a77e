"""What `conftest.py` sees to: one thread for each library, and which tests are fast."""

import subprocess
import sys
from collections import Counter

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_linear_algebra_has_one_thread():
    code = """
import os
import numpy, scipy.linalg
scipy.linalg.svd(numpy.ones((300, 300)))
print(len(os.listdir("/proc/self/task")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_the_first_cases_of_each_test_are_fast(request):
    """Those of folders that take minutes, and of what is compiled, are not."""
    fast = [item for item in request.session.items if item.get_closest_marker("fast")]
    assert request.node in fast
    assert max(Counter(item.nodeid.partition("[")[0] for item in fast).values()) <= 3
    assert not [item for item in fast if "tests/torchdcls_train/" in item.nodeid or item.get_closest_marker("compiles")]
