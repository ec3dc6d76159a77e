"""Builds sdist and wheels, and tries them as a user would: `python scripts/check_package.py [FOLDER]`.

It builds the sdist, a wheel with compiled kernels made of it, and a wheel of Python alone. All have to pass `twine
check`. The last one is installed into a fresh environment outside the checkout. It may bring nothing but torch. The
README's first example has to run there, and errors have to name what is missing. Then the compiled one is installed
with its extras: `torchdcls compare positions --quick` and the doctests have to run there. FOLDER keeps what was built.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Variables by which Python would find the checkout.
_LEADING_BACK = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
# Of the fresh environment without extras: what is installed is torchdcls, pip's own, and what torch brings.
_BROUGHT = """
import re
from importlib.metadata import distributions

def name(words):
    return re.sub("[-_.]+", "-", re.match("[A-Za-z0-9._-]+", words)[0]).lower()

installed = {name(found.name): found for found in distributions()}
expected, waiting = {"pip", "setuptools", "torchdcls"}, ["torch"]
while waiting:
    if (one := waiting.pop()) in installed and one not in expected:
        expected.add(one)
        waiting += map(name, installed[one].requires or [])
assert set(installed) <= expected, f"torchdcls brings {sorted(set(installed) - expected)}"
"""
# What asks for packages of an extra, and the command that its error has to name.
_MISSING = {
    'import torchdcls; torchdcls.load_official("x.pth")': 'pip install "torchdcls[train]"',
    "import torchdcls.plots": 'pip install "torchdcls[train]"',
    'from torchdcls.deployment import export; import torch; export(torch.nn.ReLU(), "x.onnx", to="onnx",'
    " example=torch.zeros(1, 1))": 'pip install "torchdcls[export]"',
    "import sys; from torchdcls.cli import main; sys.exit(main(['compare', 'positions']))": (
        "torchdcls compare: this command needs the packages of the train extra"
    ),
    "from torchdcls.delays import SynapticDelays as S, to_nir; to_nir(S(2, 2, max_delay=3), 1e-3)": (
        'pip install "torchdcls[delays]"'
    ),
}


def main(folder: Path) -> None:
    """Builds into a folder, and raises where a command fails."""
    build = [sys.executable, "-m", "build", "--outdir", str(folder)]
    _run([*build, str(ROOT)], folder)
    _run([*build, "--wheel", str(ROOT)], folder, CC="/nonexistent")
    built = sorted(map(str, folder.glob("torchdcls-*")))
    _run([sys.executable, "-m", "twine", "check", "--strict", *built], folder)
    (pure,) = folder.glob("*-none-any.whl")
    (compiled,) = set(folder.glob("*.whl")) - {pure}
    with tempfile.TemporaryDirectory() as elsewhere:
        environment = Path(elsewhere) / "venv"
        venv.create(environment, with_pip=True)
        python = str(environment / ("Scripts" if os.name == "nt" else "bin") / "python")
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]

        _run([*pip, "install", str(pure)], elsewhere)
        _run([python, "-c", f"import torchdcls; assert {str(environment)!r} in torchdcls.__file__"], elsewhere)
        _run([python, "-c", _BROUGHT], elsewhere)
        _run([python, "-c", (ROOT / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]], elsewhere)
        for program, sentence in _MISSING.items():
            _run([python, "-c", program], elsewhere, fails_with=sentence)

        _run([*pip, "uninstall", "--yes", "torchdcls"], elsewhere)
        _run([*pip, "install", f"torchdcls[train,data,export] @ {compiled.as_uri()}", "pytest"], elsewhere)
        compiled_kernels = "assert torchdcls.native.status().startswith('compiled kernels')"
        _run([python, "-c", f"import torchdcls; {compiled_kernels}"], elsewhere)
        _run([python, "-m", "torchdcls", "compare", "positions", "--quick", "--out", "run"], elsewhere)
        if not (Path(elsewhere) / "run" / "report.html").is_file():
            raise RuntimeError("torchdcls compare positions wrote no report.html")
        doctests = ["--quiet", "--doctest-modules", "--pyargs", "torchdcls", "torchdcls_train"]
        _run([python, "-m", "pytest", *doctests], elsewhere)


def _run(command: list[str], folder: str | Path, fails_with: str | None = None, **variables: str) -> None:
    """Runs a command, which has to succeed, or to fail with a sentence."""
    print("+", *(word.strip().partition("\n")[0] for word in command), flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in _LEADING_BACK} | variables
    if fails_with is None:
        subprocess.run(command, cwd=folder, env=environment, check=True)
        return
    done = subprocess.run(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode == 0 or fails_with not in done.stderr:
        raise RuntimeError(f"expected an error with {fails_with!r}, got status {done.returncode} and {done.stderr!r}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        target = Path(sys.argv[1]).resolve()
        target.mkdir(parents=True, exist_ok=True)
        main(target)
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
