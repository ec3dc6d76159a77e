"""The command line: what it accepts, what it says, and how it ends."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from torchdcls import __version__
from torchdcls.cli import main
from torchdcls.train.comparison import compare as comparison
from torchdcls.train.comparison.config import CompareConfig


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[CompareConfig]:
    """Settings that reach the comparison, which itself does nothing."""
    configs: list[CompareConfig] = []

    def compare(config: CompareConfig, *, argv: list[str]) -> dict[str, Any]:
        configs.append(config)
        return {"status": "interrupted" if config.seeds == 13 else "finished"}

    monkeypatch.setattr(comparison, "compare", compare)
    return configs


def test_defaults(seen: list[CompareConfig]) -> None:
    assert main(["compare"]) == 0
    assert seen == [CompareConfig(methods=["7x7", "bilinear", "triangle", "gaussian"])]


def test_options(seen: list[CompareConfig], tmp_path: Path) -> None:
    arguments = ["--model", "convformer", "--methods", "7x7", "gaussian", "--seeds", "2", "--epochs", "3", "--quick"]
    assert main(["compare", *arguments, "--dilated-kernel-size", "23", "--out", str(tmp_path), "--device", "auto"]) == 0
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


def test_settings_from_a_file(seen: list[CompareConfig], tmp_path: Path) -> None:
    """1e-3 is a number there too, and options on the command line win."""
    file = tmp_path / "settings.yaml"
    file.write_text("lr: 1e-3\nseeds: 3\nmethods: [7x7, triangle]\n")
    assert main(["compare", "--config", str(file), "--seeds", "4"]) == 0
    assert seen == [CompareConfig(lr=1e-3, seeds=4, methods=["7x7", "triangle"])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "compare"),
        (["fit"], "compare"),
        (["trian"], "did you mean 'train'?"),
        (["study"], "torchdcls study: the following arguments are required: config"),
        (["compare", "--epochs", "many"], "epochs"),
        (["compare", "--methods", "9x9"], "methods"),
        (["compare", "--kernel", "3"], "--kernel"),
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
    assert main(["compare", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("torchdcls compare: --data: ")
    assert "nowhere" in error
    assert error.count("\n") == 1


def test_interruption_ends_with_130(seen: list[CompareConfig]) -> None:
    assert main(["compare", "--seeds", "13"]) == 130


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in ((["--version"], __version__), (["compare", "--help"], "--dilated-kernel-size")):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert expected in capsys.readouterr().out


def test_without_the_train_extra_it_says_what_to_install() -> None:
    code = "import sys\nsys.modules['jsonargparse'] = None\nfrom torchdcls.cli import main\nsys.exit(main(['compare']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert 'pip install "torchdcls[train]"' in done.stderr
    assert "Traceback" not in done.stderr
