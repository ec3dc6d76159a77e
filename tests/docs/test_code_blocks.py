"""Every block of code on a page runs: Python as it is, commands up to their parser, YAML up to the settings."""

import importlib.util
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pages import PAGES, ROOT, blocks, languages, name, run_blocks

from benchmarks.run import BENCHMARKS
from studies.files import study_names
from torchdcls.cli.main import _command
from torchdcls_train.recipes import load_recipe

# What some pages print.
PRINTED = {
    "README.md": ("kernel (1, 8, 17, 17), Dcls2d(8, 1, kernel_count=16", "28,589,128 before, 28,586,536 after"),
    "docs/guides/convert.md": ("28,589,128 before, 28,586,536 after", "28 x 28 becomes 68 x 68"),
    "docs/guides/fine-tune.md": ("the same outputs: True",),
    "docs/guides/segmentation.md": ("torch.Size([1, 8, 55, 56])",),
    "docs/guides/delays.md": ("tensor(True) tensor(True)", "True\ntorch.Size([8, 16])"),
}
PYTHON = [page for page in PAGES if blocks(page, "python")]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
OTHERS = {"mkdir", "cp", "cat", "tail", "bash", "pytest"}


def test_every_block_is_of_a_language_that_is_tested() -> None:
    used = {language for page in PAGES for language in languages(page) if not language.startswith("{")}
    assert used == {"python", "sh", "yaml", "bibtex", "text"}


@pytest.mark.parametrize("page", PYTHON, ids=name)
def test_python_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(blocks(page, "python"), tmp_path)
    printed = capsys.readouterr().out
    for words in PRINTED.get(name(page), ()):
        assert words in printed


def test_each_example_of_the_readme_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(ROOT / "README.md", "python")[1:]:
        run_blocks([block], tmp_path)


def commands() -> Iterator[tuple[str, list[str]]]:
    """All commands of all pages, with the page."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                while "&&" in words:
                    yield name(page), words[: words.index("&&")]
                    words = words[words.index("&&") + 1 :]
                if words:
                    yield name(page), words


@pytest.mark.parametrize(("page", "words"), list(commands()), ids=lambda value: " ".join(value)[:60])
def test_commands_exist(page: str, words: list[str]) -> None:
    while "=" in words[0]:  # a variable of the environment
        words = words[1:]
    match words:
        case ["pip", "install", *packages]:
            for package in packages:
                what, _, extras = package.partition("[")
                assert what in ("-e", "torchdcls", ".")
                assert {extra for extra in extras.rstrip("]").split(",") if extra} <= set(EXTRAS)
        case ["torchdcls", command, *arguments]:
            parse(command, arguments)
        case ["torchrun", *arguments]:
            start = arguments.index("torchdcls")
            parse(arguments[start + 1], arguments[start + 2 :])
        case ["python", "-m", "benchmarks.run", benchmark, *_]:
            assert benchmark in BENCHMARKS
        case ["python", "-m", "studies.run", study, *_]:
            assert study in ("CONFIG", "settings", *study_names())
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module) is not None
        case ["python", script, *_]:
            assert (ROOT / script).is_file()
        case _:
            assert words[0] in OTHERS


def parse(command: str, arguments: list[str]) -> None:
    """Refuses what the command refuses."""
    parser = _command([command]).options(arguments)
    parser.exit_on_error = False
    parser.parse_args(arguments)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=name)
def test_recipes_are_recipes(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "yaml"):
        (tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
        settings = yaml.safe_load(block)
        base = settings.pop("base")
        assert load_recipe(str(tmp_path / "mine.yaml")) == load_recipe(base) | settings
