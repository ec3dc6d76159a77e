"""The compiled kernels on random problems, by `fuzz.c`: beside guard pages, under sanitizers, and with NEON.

`python tests/csrc/test_fuzz.py PROBLEMS [SEED]` tries more, under sanitizers.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
NEON = "aarch64-linux-gnu-gcc"
# Its own name since Debian 13, after its packages.
QEMU = next(filter(shutil.which, ("qemu-aarch64", "qemu-aarch64-static")), None)


def driver(folder, flags=(), compiler="cc"):
    """The program that tries problems, with a library of its own, both compiled with `flags`."""
    library, program = folder / "kernels.so", folder / "fuzz"
    # Maps of small problems are to be cut too.
    build = [sys.executable, str(ROOT / "csrc" / "build.py"), str(library), "-DMIXED_BYTES=65536", *flags]
    subprocess.run(build, env=os.environ | {"CC": compiler}, check=True)
    warnings = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}"]
    parts = [str(ROOT / "tests" / "csrc" / "fuzz.c"), str(library), f"-Wl,-rpath,{folder}", "-o", str(program)]
    subprocess.run([compiler, *warnings, *flags, *parts, "-lm", "-lpthread"], check=True)
    return program


def tried(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_nothing_beside_a_tensor_is_touched(tmp_path):
    assert tried([driver(tmp_path), 2000]).endswith("agree on 2000 problems\n")


def test_nothing_is_undefined_under_sanitizers(tmp_path):
    assert tried([driver(tmp_path, SANITIZERS), 500]).endswith("agree on 500 problems\n")


@pytest.mark.skipif(shutil.which(NEON) is None or QEMU is None, reason=f"needs {NEON} and qemu-aarch64")
def test_neon(tmp_path):
    emulated = [QEMU, "-L", "/usr/aarch64-linux-gnu"]
    assert tried([*emulated, driver(tmp_path, compiler=NEON), 200]) == "neon agree on 200 problems\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        print(tried([driver(Path(made), SANITIZERS), *sys.argv[1:]]), end="")
