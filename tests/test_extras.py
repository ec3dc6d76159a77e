"""Missing packages: one sentence everywhere, with a command that installs them."""

import importlib
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from missing import OPTIONAL, run_without
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import torchdcls
from torchdcls._extras import EXTRAS, install_command, needed_by

ROOT = Path(__file__).parents[1]
# How the sentence ends, of the package as the tests import it: that of a checkout.
COMMAND = f'pip install -e "{ROOT}[train]"'
EXPORT_COMMAND = f'pip install -e "{ROOT}[export]"'


def test_the_extras_are_those_of_pyproject() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distributions = packages_distributions()
    for extra, packages in EXTRAS.items():
        brought = {canonicalize_name(Requirement(line).name) for line in stated[extra]}
        assert {canonicalize_name(distributions[package][0]) for package in packages} == brought


def test_every_module_is_imported_or_says_what_to_install() -> None:
    """With torch alone; of the command line, what is loaded once its packages have been asked for is left out."""
    program = """
import importlib, pkgutil, torchdcls
names = [found.name for found in pkgutil.walk_packages(torchdcls.__path__, "torchdcls.", onerror=lambda name: None)]
for name in [*names, "torchdcls_train"]:
    if name in ("torchdcls.__main__", "torchdcls.cli.info", "torchdcls.ops.native._kernels"):  # the last in C alone
        continue
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
"""
    done = run_without([name for name in OPTIONAL if name != "triton"], program)  # triton comes with torch
    assert done.returncode == 0, done.stderr
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert list(told) == [
        *("torchdcls.cli.options", "torchdcls.deployment.hub", "torchdcls.inspection.tables"),
        *("torchdcls.models", "torchdcls.plots", "torchdcls_train"),
    ]
    for name, sentence in told.items():
        assert sentence.startswith(f"{name} needs the packages of the train extra ("), name
        assert sentence.endswith(f" missing): {COMMAND}"), name


def test_commands_and_functions(tmp_path: Path) -> None:
    program = f"""
import pathlib, sys, torch, torchdcls, torchdcls.conversion.files
from torchdcls.cli import main
from torchdcls.deployment import export, load

for command in ("compare", "train", "eval", "export", "info"):
    assert main([command, "--help"]) == 2

folder = pathlib.Path({str(tmp_path)!r})
stored = folder / "stored.safetensors"
stored.touch()
layer = torchdcls.Dcls2d(4, 4, 3, padding="same", dilated_kernel_size=5, groups=4)
for call in (
    lambda: torchdcls.load_official,
    lambda: export(layer, folder / "new.safetensors", to="safetensors"),
    lambda: export(layer, folder / "new.onnx", to="onnx", example=torch.randn(1, 4, 6, 6)),
    lambda: load(stored),
    lambda: torchdcls.conversion.files.read(stored),
):
    try:
        call()
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)

for word in ("--help", "--version"):
    try:
        main([word])
    except SystemExit:
        pass
"""
    done = run_without(OPTIONAL, program)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.strip().startswith(("compare ", "torchdcls 0"))]
    lines = done.stderr.splitlines()
    everything = f"({', '.join(EXTRAS['train'])} are missing): {COMMAND}"
    assert lines[:5] == [
        f"torchdcls {command}: this command needs the packages of the train extra {everything}"
        for command in ("compare", "train", "eval", "export", "info")
    ]
    onnx = "(onnx, onnxruntime, onnxscript, safetensors are missing)"
    assert lines[5:] == [
        f"torchdcls.models needs the packages of the train extra (timm is missing): {COMMAND}",
        f"a safetensors file needs the packages of the export extra (safetensors is missing): {EXPORT_COMMAND}",
        f"an ONNX file needs the packages of the export extra {onnx}: {EXPORT_COMMAND}",
        f"a safetensors file needs the packages of the export extra (safetensors is missing): {EXPORT_COMMAND}",
        f"a safetensors file needs the packages of the train extra (safetensors is missing): {COMMAND}",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["stored.safetensors"]


def test_the_library_without_training() -> None:
    """Where `torchdcls_train` was not installed with it, the commands that need it name it; the others run."""
    program = """
from torchdcls.cli import main

assert [main([command]) for command in ("compare", "train", "eval", "export")] == [2] * 4
assert main(["info", "resnet10t"]) == 0
"""
    done = run_without(["torchdcls_train"], program)
    assert done.returncode == 0, done.stderr
    sentence = f"this command needs the packages of the train extra (torchdcls_train is missing): {COMMAND}"
    assert done.stderr.splitlines() == [
        f"torchdcls {command}: {sentence}" for command in ("compare", "train", "eval", "export")
    ]


def test_other_errors_inside_stay_as_they_are() -> None:
    """A part of a package that is there, and a module of the package itself."""
    for name in ("timm.nowhere", "torchdcls.nowhere"):
        with pytest.raises(ModuleNotFoundError, match=f"^No module named '{name}'$"), needed_by("x", "train"):
            importlib.import_module(name)


def test_the_command_of_an_installed_package(tmp_path: Path) -> None:
    """Where there is no checkout around the package, its name alone is right."""
    assert install_command("train") == COMMAND
    package = tmp_path / "lib" / "site-packages" / "torchdcls"
    package.mkdir(parents=True)
    shutil.copy(Path(torchdcls.__file__).with_name("_extras.py"), package)
    (package / "__init__.py").touch()
    code = "from torchdcls._extras import install_command; print(install_command('export'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=package.parent, env={"PYTHONPATH": "."}, capture_output=True, text=True
    )
    assert done.stdout == 'pip install "torchdcls[export]"\n'
