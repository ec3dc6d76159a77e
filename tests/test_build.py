"""Wheels made of the source distribution: with the compiled kernels, and without where nothing can compile them."""

import ctypes
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "torchdcls/ops/native/_kernels.so"
PLATFORM = sysconfig.get_platform().replace("-", "_")


def build(kind, sources, folder, compiler=None):
    """What hatchling makes of `sources` in `folder`, and what it says."""
    program = f"import hatchling.build, sys; print(hatchling.build.build_{kind}(sys.argv[1]))"
    environment = os.environ | ({} if compiler is None else {"CC": str(compiler)})
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, cwd=sources, env=environment, capture_output=True, text=True, check=True)
    *said, name = (done.stderr + done.stdout).splitlines()
    return folder / name, said


def files(folder):
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    packed, _ = build("sdist", ROOT, folder)
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / packed.name.removesuffix(".tar.gz")


def test_a_wheel_holds_the_library_and_the_source_tree_stays_as_it_was(sources, tmp_path):
    before = files(sources)
    wheel, said = build("wheel", sources, tmp_path)
    assert said == []
    assert files(sources) == before
    assert wheel.name.endswith(f"-py3-none-{PLATFORM}.whl")
    with zipfile.ZipFile(wheel) as archive:
        library = ctypes.CDLL(archive.extract(LIBRARY, tmp_path))
        assert (
            "Root-Is-Purelib: false" in archive.read(f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/WHEEL").decode()
        )
    assert library.td_variant_runs(0) in (0, 1)


def test_a_wheel_holds_the_packages_and_nothing_else(sources, tmp_path):
    wheel, _ = build("wheel", sources, tmp_path, "/nonexistent")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    about = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    python = {name for name in names if name.endswith(".py")}
    packaged = [*(ROOT / "src").rglob("*.py")]
    assert python == {path.relative_to(ROOT / "src").as_posix() for path in packaged}
    beside = {"torchdcls_cli.py", "torchdcls_results.py"}
    assert {name.partition("/")[0] for name in python} == {"torchdcls", "torchdcls_train", *beside}
    assert sorted(set(names) - python) == [
        *(f"{about}/METADATA", f"{about}/RECORD", f"{about}/WHEEL", f"{about}/entry_points.txt"),
        f"{about}/licenses/LICENSE",
        f"{about}/licenses/src/torchdcls_train/data/embedded/LICENSE-fashion-mnist.txt",
        *("torchdcls/deployment/hub/model_card.md", "torchdcls/ops/conv/rates.json", "torchdcls/py.typed"),
        "torchdcls_train/data/embedded/LICENSE-fashion-mnist.txt",
        "torchdcls_train/data/embedded/fashion_mnist_subset.npz",
        *(f"torchdcls_train/recipes/{name}.yaml" for name in ("caformer", "convformer", "convnext", "fastvit")),
        "torchdcls_train/recipes/resnet50.yaml",
    ]
    lines = metadata.splitlines()
    needed = [line for line in lines if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    assert needed == ["Requires-Dist: torch>=2.11"]
    # Nothing that an index shows leads into a checkout.
    shown = metadata.partition("\n\n")[2]
    links = re.findall(r"\]\(([^)]+)\)", shown)
    assert len(links) > 20 and all(link.startswith("https://") for link in links)
    assert "(https://github.com/torchdcls/torchdcls/raw/main/docs/images/travel.gif)" in shown
    assert "(https://github.com/torchdcls/torchdcls/blob/main/docs/comparisons.md)" in shown


def test_an_editable_installation_has_the_library_in_the_source_tree(sources, tmp_path):
    build("editable", sources, tmp_path)
    assert ctypes.CDLL(str(sources / "src" / LIBRARY)).td_variant_runs(0) in (0, 1)
    # It is no part of what is made of this tree later, and goes when there is no compiler any more.
    wheel, _ = build("wheel", sources, tmp_path, "/nonexistent")
    assert LIBRARY not in zipfile.ZipFile(wheel).namelist()
    build("editable", sources, tmp_path, "/nonexistent")
    assert not (sources / "src" / LIBRARY).exists()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (None, "expected a C compiler as cc, or named by the environment variable CC, got "),
        ("echo riscv64-linux-gnu", "expected a processor of x86_64, aarch64, got 'riscv64'"),
        ('[ "$1" = -dumpmachine ] && exec echo x86_64-linux-gnu; printf "no\\nroom\\n" >&2; exit 1', "no room (from "),
    ],
    ids=["no compiler", "unknown processor", "compiler that fails"],
)
def test_a_wheel_without_the_library_says_why_in_one_line(sources, tmp_path, program, reason):
    compiler = tmp_path / "compiler"
    if program is not None:
        compiler.write_text(f"#!/bin/sh\n{program}\n")
        compiler.chmod(0o755)
    wheel, said = build("wheel", sources, tmp_path, compiler)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert len(said) == 1
    assert said[0].startswith(f"torchdcls without compiled CPU kernels: {reason}")
    with zipfile.ZipFile(wheel) as archive:
        assert LIBRARY not in archive.namelist()
        assert "torchdcls/__init__.py" in archive.namelist()
