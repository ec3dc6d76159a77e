"""Builds sdist and wheel, and tries them as a user would: `python scripts/check_package.py [FOLDER]`.

Both have to pass `twine check`. The wheel, made of the sdist, is installed into a fresh environment outside the
checkout; there `torchdcls compare positions --quick` and the doctests have to run. FOLDER keeps what was built.
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


def main(folder: Path) -> None:
    """Builds into a folder, and raises where a command fails."""
    _run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], folder)
    built = sorted(map(str, folder.glob("torchdcls-*")))
    _run([sys.executable, "-m", "twine", "check", "--strict", *built], folder)
    (wheel,) = folder.glob("*.whl")
    with tempfile.TemporaryDirectory() as elsewhere:
        environment = Path(elsewhere) / "venv"
        venv.create(environment, with_pip=True)
        python = str(environment / ("Scripts" if os.name == "nt" else "bin") / "python")
        needed = [f"torchdcls[train,data,export] @ {wheel.as_uri()}", "pytest"]
        _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needed], elsewhere)
        _run([python, "-c", f"import torchdcls; assert {str(environment)!r} in torchdcls.__file__"], elsewhere)
        _run([python, "-m", "torchdcls", "compare", "positions", "--quick", "--out", "run"], elsewhere)
        if not (Path(elsewhere) / "run" / "report.html").is_file():
            raise RuntimeError("torchdcls compare positions wrote no report.html")
        doctests = ["--quiet", "--doctest-modules", "--pyargs", "torchdcls", "torchdcls_train"]
        _run([python, "-m", "pytest", *doctests], elsewhere)


def _run(command: list[str], folder: str | Path) -> None:
    print("+", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in _LEADING_BACK}
    subprocess.run(command, cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        target = Path(sys.argv[1]).resolve()
        target.mkdir(parents=True, exist_ok=True)
        main(target)
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
