"""The command line: what it accepts, what it says, and how it ends."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from torchdcls import __version__
from torchdcls.cli import main
from torchdcls.cli.options import Command
from torchdcls_cli import COMMANDS
from torchdcls_train.comparison import report
from torchdcls_train.comparison.config import CompareConfig, DigitsConfig, PositionsConfig
from torchdcls_train.comparison.digits import run as digits_run
from torchdcls_train.comparison.images import findings as images_findings
from torchdcls_train.comparison.images import run as images_run
from torchdcls_train.comparison.positions import findings as positions_findings
from torchdcls_train.comparison.positions import run as positions_run


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[CompareConfig]:
    """Settings that reach the comparison, which itself does nothing."""
    configs: list[CompareConfig] = []

    def compare(config: CompareConfig, *, argv: list[str]) -> SimpleNamespace:
        configs.append(config)
        return SimpleNamespace(status="interrupted" if config.seeds == 13 else "finished")

    monkeypatch.setattr(images_run, "compare_images", compare)
    return configs


def test_defaults(seen: list[CompareConfig]) -> None:
    assert main(["compare", "images"]) == 0
    assert seen == [CompareConfig(methods=["7x7", "bilinear", "triangle", "gaussian"])]


def test_options(seen: list[CompareConfig], tmp_path: Path) -> None:
    arguments = ["--model", "convformer", "--methods", "7x7", "gaussian", "--seeds", "2", "--epochs", "3", "--quick"]
    assert (
        main(
            ["compare", "images", *arguments, "--dilated-kernel-size", "23", "--out", str(tmp_path), "--device", "auto"]
        )
        == 0
    )
    assert seen == [
        CompareConfig(
            model="convformer",
            methods=["7x7", "gaussian"],
            seeds=2,
            epochs=3,
            quick=True,
            dilated_kernel_size=23,
            out=tmp_path,
        )
    ]


def test_lists_that_may_be_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configs: list[DigitsConfig] = []

    def compare_digits(config: DigitsConfig, *, argv: list[str]) -> SimpleNamespace:
        configs.append(config)
        return SimpleNamespace(status="finished")

    monkeypatch.setattr(digits_run, "compare_digits", compare_digits)
    (tmp_path / "settings.yaml").write_text("speakers: [theo]")
    for arguments in ([], ["--speakers", "theo", "jackson"], ["--config", str(tmp_path / "settings.yaml")]):
        main(["compare", "digits", *arguments])
    assert [config.speakers for config in configs] == [None, ["theo", "jackson"], ["theo"]]


def test_settings_from_a_file(seen: list[CompareConfig], tmp_path: Path) -> None:
    """1e-3 is a number there too, and options on the command line win."""
    file = tmp_path / "settings.yaml"
    file.write_text("lr: 1e-3\nseeds: 3\nmethods: [7x7, triangle]\n")
    assert main(["compare", "images", "--config", str(file), "--seeds", "4"]) == 0
    assert seen == [CompareConfig(lr=1e-3, seeds=4, methods=["7x7", "triangle"])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "compare"),
        (["fit"], "compare"),
        (["--epochs", "3"], "torchdcls: --epochs: expected a command before its options, one of compare, train,"),
        (["trian"], "did you mean 'train'?"),
        (["compare", "images", "--epochs", "many"], "epochs"),
        (["compare", "images", "--methods", "9x9"], "methods"),
        (["compare", "images", "--kernel", "3"], "--kernel: expected an option; did you mean '--kernel-count'?"),
        (["compare", "images", "--seed", "3"], "--seed: expected an option; did you mean '--seeds'?"),
        (["compare", "images", "--quik"], "--quik: expected an option; did you mean '--quick'?"),
        (["eval", "best.safetensors", "--weight", "ema"], "--weight: expected an option; did you mean '--weights'?"),
        (["compare", "images", "--methods", "7x7", "gausian"], "got 'gausian'; did you mean 'gaussian'?"),
        (["compare", "images", "--methods"], "--methods: expected at least one argument"),
        (["compare", "images", "--config", "nowhere.yaml"], "--config: File does not exist: "),
        (["compare", "images", "--config", __file__], "--config: expected a YAML file with lines of 'setting: value'"),
        (
            ["compare", "position"],
            "torchdcls compare: expected 'positions', 'images' or 'digits', or an option; did you mean 'positions'?",
        ),
        (["compare", "--taps", "3"], "--taps: expected 'positions' before it, as in torchdcls compare positions --t"),
        (["compare", "--seeds=3"], "--seeds: expected 'positions', 'images' or 'digits' before it"),
        (["compare", "--sed", "3"], "--sed: expected an option"),
        (["foo"], "no name is similar"),
        (["info", "resnet50", "resnet18"], "expected options, which begin with --, got the extra word 'resnet18'"),
    ],
)
def test_words_that_cannot_be_parsed(
    seen: list[CompareConfig], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    assert not seen
    error = capsys.readouterr().err
    assert error.startswith("torchdcls")
    assert message in error
    assert error.count("\n") == 1


def test_unusable_settings_end_with_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["compare", "images", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("torchdcls compare: --data: ")
    assert "nowhere" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["compare", "images", "--model", "convnex"],
            "--model: expected 'convmixer', 'convmixer-256-16', 'convnext', 'convformer', or",
        ),
        (["info", "convnex"], "got 'convnex'; did you mean 'convnext_"),
        (["info", "torchvison:resnet50"], "did you mean 'torchvision:resnet50'?"),
    ],
)
def test_models_that_are_none(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert words[0] != "compare" or error.endswith("did you mean 'convnext'?\n")


def test_under_torchrun_it_is_said_once_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torchrun's own lines, which nothing keeps it from printing, end with what stands in the file."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    printed, failures = [], {}
    for rank in range(2):
        file = tmp_path / f"{rank}.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
        monkeypatch.setenv("RANK", str(rank))
        assert main(["trian"]) == 2
        printed.append(capsys.readouterr().err)
        failures[rank] = ProcessFailure(local_rank=rank, pid=1, exitcode=2, error_file=str(file))
    sentence = "torchdcls trian: expected one of compare, train, eval, export, info; did you mean 'train'?"
    assert printed == [f"{sentence}\n", ""]
    *_, last, end = str(ChildFailedError("torchdcls", failures)).strip().splitlines()
    assert last.strip() == f"traceback : {sentence}" and set(end) == {"="}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(30, "Read-only file system", "/disk/x"),
            "a file cannot be used, '/disk/x': Read-only file system; give",
        ),
        (OSError(28, "No space left on device"), "a file cannot be used: No space"),
        (OSError("checkpoint: 'x' cannot be written (full)"), "checkpoint: 'x' cannot be written (full)\n"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    def compare(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(images_run, "compare_images", compare)
    assert main(["compare", "images"]) == 2
    assert capsys.readouterr().err.startswith(f"torchdcls compare: {message}")


def test_compare_alone_does_both(
    seen: list[CompareConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Positions first, each in a folder of its own, and one report; an interruption of the first is one of both."""
    positions: list[PositionsConfig] = []
    reported: list[Any] = []
    status = "finished"

    def compare_positions(config: PositionsConfig, *, argv: list[str]) -> SimpleNamespace:
        assert not seen and argv[0] == "compare"
        positions.append(config)
        return SimpleNamespace(status=status)

    monkeypatch.setattr(positions_run, "compare_positions", compare_positions)
    monkeypatch.setattr(positions_findings, "positions_section", lambda result, folder: ("positions", folder))
    monkeypatch.setattr(images_findings, "images_section", lambda result, folder: ("images", folder))
    monkeypatch.setattr(report, "write_report", lambda *given: reported.append(given))
    assert main(["compare", "--quick", "--threads", "1", "--out", str(tmp_path)]) == 0
    assert positions == [PositionsConfig(quick=True, threads=1, out=tmp_path / "positions")]
    assert seen == [CompareConfig(quick=True, threads=1, out=tmp_path / "images")]
    parts = [(name, tmp_path / name) for name in ("positions", "images")]
    assert reported == [(tmp_path / "report.html", parts)]
    assert "report.html, with both comparisons" in capsys.readouterr().out
    seen.clear()
    status = "interrupted"
    assert main(["compare"]) == 130
    assert not seen and len(reported) == 1
    assert main(["compare", "positions", "--students", "bilinear", "gaussian-3", "--seeds", "2"]) == 130
    assert positions[-1] == PositionsConfig(
        inputs=["edges", "images"], starts=["narrow", "spread"], students=["bilinear", "gaussian-3"], seeds=2
    )


def test_interruption_ends_with_130(seen: list[CompareConfig]) -> None:
    assert main(["compare", "images", "--seeds", "13"]) == 130


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        (["--version"], __version__),
        (["compare", "images", "--help"], "--dilated-kernel-size"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_do_without_torch(word: str) -> None:
    """It takes seconds to import."""
    code = f"""
import sys
sys.argv = ["torchdcls", {word!r}]
import torchdcls_cli
try:
    torchdcls_cli.main()
finally:
    print(sorted({{"torch", "torchdcls", "numpy", "jsonargparse", "timm"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *told, imported = done.stdout.splitlines()
    assert imported == "[]"
    if word == "--version":
        assert told == [f"torchdcls {__version__}"]
    else:
        assert all(any(line.split()[:1] == [name] for line in told) for name in COMMANDS)


def test_help_of_a_command_imports_what_parses_alone() -> None:
    code = """
import sys, torch
before = set(sys.modules)
from torchdcls.cli import main
for name in ("compare", "train", "eval", "export", "info"):
    try:
        main([name, "--help"])
    except SystemExit:
        pass
heavy = {"timm", "torchvision", "PIL", "scipy", "matplotlib", "rich", "safetensors", "onnx", "datasets"}
print(sorted(heavy & set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("usage: torchdcls") == 5
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_that_help_names_is_there() -> None:
    for entry in COMMANDS.values():
        assert isinstance(getattr(import_module(entry.module), entry.name), Command)
