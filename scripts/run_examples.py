"""Runs the files of examples/ in their short form and prints their times: `python scripts/run_examples.py [NAME ...]`.

Each runs as examples/README.md says, with one thread, in a folder of its own. `--recordings FOLDER` says where the
recordings for spoken_digits are; without it that file is left out. `--write` puts what they printed into
examples/README.md: do that on an idle machine. The exit status is 1 if one fails or takes more than two minutes of a
core, which other processes change less than the time on the clock.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "examples" / "README.md"
LIMIT = 120  # seconds
# Each epoch's loss and the picture's place say nothing about the result.
_LEFT_OUT = ("epoch ", "Picture")


def commands(text: str) -> dict[str, list[str]]:
    """What the README calls, by the name of the file: its words after `python`."""
    return {words[1]: shlex.split(words[0]) for words in re.findall(r"^    python (examples/(\w+)\.py.*)$", text, re.M)}


def with_output(text: str, name: str, printed: str) -> str:
    """The README with another output of an example."""
    lines = [line for line in printed.splitlines() if line and not line.startswith(_LEFT_OUT)]
    wrapped = [textwrap.fill(line, 116, initial_indent=" " * 4, subsequent_indent=" " * 6) for line in lines]
    begin = rf"(    python examples/{name}\.py[^\n]*\n\nIt printed:\n\n)(?:    [^\n]*\n)+"
    new, changed = re.subn(begin, lambda found: found[1] + "\n".join(wrapped) + "\n", text)
    if changed != 1:
        raise ValueError(f"{README}: expected one output of {name}, found {changed}")
    return new


def main() -> int:
    """Runs the examples one after the other; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = README.read_text(encoding="utf-8")
    calls = commands(text)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(calls))
    parser.add_argument("--recordings", type=Path, help="folder of the Free Spoken Digit Dataset's recordings")
    parser.add_argument("--write", action="store_true", help="write what they printed into examples/README.md")
    options = parser.parse_args()
    if unknown := set(options.names) - set(calls):
        parser.error(f"expected names of {', '.join(calls)}, got {', '.join(sorted(unknown))}")
    status = 0
    for name in options.names or calls:
        words = calls[name]
        if "recordings" in words:
            if options.recordings is None:
                print(f"{name}: left out, needs --recordings FOLDER", flush=True)
                continue
            words[words.index("recordings")] = str(options.recordings.resolve())
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with tempfile.TemporaryDirectory() as folder:
            began, used = time.perf_counter(), sum(os.times()[2:4])
            done = subprocess.run(
                [sys.executable, str(ROOT / words[0]), *words[1:]],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            took, used = time.perf_counter() - began, sum(os.times()[2:4]) - used
        verdict = "FAILED" if done.returncode else "TOO LONG" if used > LIMIT else "ok"
        print(f"{name}: {verdict}, {took:.0f} s on the clock, {used:.0f} s of a core", flush=True)
        print(textwrap.indent(done.stdout.rstrip(), "    "), flush=True)
        status |= verdict != "ok"
        if options.write and not done.returncode:
            text = with_output(text, name, done.stdout)
            README.write_text(text, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
