"""Compiles the kernels into a shared library: `python csrc/build.py LIBRARY [FLAG ...]`."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
COMMON = ("-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi")
# Name of an instruction set, bytes of its vectors, flags.
VARIANTS: dict[str, tuple[tuple[str, int, tuple[str, ...]], ...]] = {
    "x86_64": (
        ("avx512", 64, ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512")),
        ("avx2", 32, ("-mavx2", "-mfma")),
        ("sse2", 16, ()),
    ),
    "aarch64": (("neon", 16, ()),),
}
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


def compile_library(library: Path, flags: Sequence[str] = ()) -> None:
    """Compiles `csrc/` for every instruction set of the processor that the compiler compiles for.

    The compiler is the one that the environment variable CC names, with flags if need be, or cc.

    Args:
        library: Where to write the shared library.
        flags: More flags for compiler and linker, such as "-fsanitize=address".

    Raises:
        RuntimeError: There is no compiler, the processor is of an unknown kind, or the compiler fails.
    """
    compiler = shlex.split(os.environ.get("CC") or "cc", posix=os.name == "posix")
    if shutil.which(compiler[0]) is None:
        raise RuntimeError(f"expected a C compiler as cc, or named by the environment variable CC, got {compiler[0]!r}")
    target = _run([*compiler, "-dumpmachine"]).strip()
    machine = _ALIASES.get(target.partition("-")[0], target.partition("-")[0])
    if machine not in VARIANTS:
        raise RuntimeError(f"expected a processor of {', '.join(VARIANTS)}, got {machine!r}")
    # On Windows the library brings its pthreads along.
    link = ("-static",) if "mingw" in target or "windows" in target else ()
    with tempfile.TemporaryDirectory() as folder:
        parts = [("library.c", f"{folder}/library.o", ())]
        for name, width, own in VARIANTS[machine]:
            for real, define in (("float", ()), ("double", ("-DTD_DOUBLE",))):
                defines = (f"-DTD_VECTOR={width}", f"-DTD_NAME=td_{name}_{real}", *define)
                parts.append(("kernels.c", f"{folder}/{name}_{real}.o", (*own, *defines)))
        with ThreadPoolExecutor() as pool:
            list(
                pool.map(lambda part: _run([*compiler, *COMMON, *flags, *part[2], "-c", part[0], "-o", part[1]]), parts)
            )
        objects = [part[1] for part in parts]
        _run([*compiler, "-shared", *link, *flags, *objects, "-o", str(library.resolve()), "-lm", "-lpthread"])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{done.stderr.strip()} (from {' '.join(command)})")
    return done.stdout


if __name__ == "__main__":
    compile_library(Path(sys.argv[1]), sys.argv[2:])
