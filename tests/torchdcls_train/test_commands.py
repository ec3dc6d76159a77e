"""`torchdcls train` and `torchdcls eval`: what they accept, and the settings with which they call the function."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.torchdcls_train import made_runs as runs
from torchdcls.cli import main
from torchdcls_train import train as training
from torchdcls_train.recipes import load_recipe, recipe_names
from torchdcls_train.settings import SETTINGS, TrainConfig


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, TrainConfig]]:
    """Settings with which `train` is called, which itself does nothing."""
    configs: list[tuple[str | None, TrainConfig]] = []

    def train(config: TrainConfig, *, name: str | None, argv: list[str]) -> dict[str, Any]:
        configs.append((name, config))
        return {}

    monkeypatch.setattr(training, "train", train)
    return configs


def test_the_command_line_comes_before_the_recipe(seen: list[tuple[str | None, TrainConfig]]) -> None:
    words = ["--epochs", "100", "--lr", "1e-3", "--scale", "[0.2,1]", "--compile", "false", "--ema", "null"]
    words += ["--data", "images", "--clip-grad", "1"]
    assert main(["train", "--config", "convnext_tiny-dcls-bilinear", *words]) == 0
    ((name, config),) = seen
    assert name == "convnext_tiny-dcls-bilinear"
    recipe = load_recipe("convnext_tiny-dcls-bilinear")
    changed = {"data": "images", "epochs": 100, "lr": 1e-3, "scale": (0.2, 1.0), "compile": False, "ema": None}
    changed["clip_grad"] = 1.0
    for setting in SETTINGS:
        expected = changed.get(setting, recipe.get(setting, getattr(TrainConfig(), setting)))
        assert getattr(config, setting) == (tuple(expected) if isinstance(expected, list) else expected), setting


def test_a_file_of_the_users_own(seen: list[tuple[str | None, TrainConfig]], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: resnet50\ndata: images\nlr: 1e-2\nmodel_args: {stem_width: 32}\n")
    assert main(["train", "--config", str(file), "--out", str(tmp_path / "run")]) == 0
    ((name, config),) = seen
    assert name == "mine"
    assert (config.model, config.lr, config.model_args, config.optimizer) == (
        "resnet50",
        1e-2,
        {"stem_width": 32},
        "lamb",
    )
    assert config.out == tmp_path / "run"


@pytest.mark.parametrize("name", recipe_names())
def test_a_dry_run_prints_what_a_recipe_comes_to(
    seen: list[tuple[str | None, TrainConfig]], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["train", "--config", name, "--dry-run", "--batch-size", "1024"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert list(printed) == list(SETTINGS)
    assert printed["batch_size"] == 1024
    recipe = load_recipe(name)
    assert all(printed[setting] == value for setting, value in recipe.items() if setting != "batch_size")
    assert seen == []


def test_small_batches_are_one_micro_batch(
    seen: list[tuple[str | None, TrainConfig]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--config", "convnext_tiny-dcls-bilinear", "--data", "images", "--batch-size", "8"]
    assert main(words) == 0
    assert seen[-1][1].micro_batch == 8
    assert capsys.readouterr().err == "torchdcls train: --micro-batch is 8 instead of 128, to match --batch-size\n"
    assert main([*words, "--micro-batch", "4"]) == 0
    assert seen[-1][1].micro_batch == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config", "convnext_tiny", "--learning-rate", "1"],
            "--learning-rate: expected an option; did you",
        ),
        (["--config", "convnext_tiny", "--warmup-epoch=1"], "did you mean '--warmup-epochs'?"),
        (["--config", "convnext_tiny-dcls-gausian"], "did you mean 'convnext_tiny-dcls-gaussian'?"),
        (["--config", "{file}"], "unknown setting 'warmup'; did you mean 'warmup_epochs'?"),
        (["--config", "{tmp}/nowhere.yaml"], "nowhere.yaml"),
        ([], "--config: expected a recipe"),
        (["--config", "convnext_tiny", "--epochs", "0"], "--epochs: expected at least 1, got 0"),
        (["--config", "convnext_tiny"], "--data: expected a folder with train/ and val/"),
    ],
)
def test_wrong_words_end_with_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], message: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("warmup: 3\n")
    assert main(["train", *(word.format(file=file, tmp=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("torchdcls train: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model-args", "{depths:[1,1],dims:[8,8]}"],
            "--model-args: expected a mapping such as '{depths: [2, 2], dims: [8, 8]}' or null, got "
            "'{depths:[1,1],dims:[8,8]}'; YAML needs a space after the colon: '{depths: [1,1],dims: [8,8]}'",
        ),
        (["--model-args", "{depths:3}"], "got '{depths:3}'; YAML needs a space after the colon: '{depths: 3}'"),
        (["--model-args", "depths=3"], "dims: [8, 8]}' or null, got 'depths=3'\n"),
        (["--scale", "0.5"], "--scale: expected 2 numbers such as '[0.5, 1]', got '0.5'"),
        (["--ratio", "[1,2,3]"], "--ratio: expected 2 numbers such as '[0.5, 1]', got '[1, 2, 3]'"),
        (["--precision", "bfloat"], "'float32' or 'bfloat16', got 'bfloat'; did you mean 'bfloat16'?"),
        (["--threads", "all"], "--threads: expected an integer or null, got 'all'"),
        (["--clamp-positions", "maybe"], "--clamp-positions: expected true or false, got 'maybe'"),
        (["--out"], "--out: expected one argument"),
        (["--config"], "--config: expected one argument"),
        (["extra"], "expected options, which begin with --, got the extra word 'extra'"),
        (["--model", "convnex"], "got 'convnex'; did you mean 'convnext_"),
    ],
)
def test_a_sentence_for_each_wrong_word(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["train", "--model", "resnet18", "--data", "embedded", "--dry-run", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("torchdcls train: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_recipe_without_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "convnext_tiny", "--data", "embedded", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.endswith("expected --config before the name of a recipe, as in --config convnext_tiny\n")


@pytest.mark.parametrize(("words", "name"), [(["--epochs", "many"], "epochs"), (["--loss", "mse"], "loss")])
def test_words_of_another_type(capsys: pytest.CaptureFixture[str], words: list[str], name: str) -> None:
    assert main(["train", "--config", "convnext_tiny", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"torchdcls train: --{name}: expected ")
    assert error.endswith(f"got {words[1]!r}\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochs: many", "epochs: expected an integer in"),
        ("lr: fast", "lr: expected a number in"),
        ("scale: [1, 2, 3]", "scale: expected 2 numbers such as '[0.5, 1]' in"),
        ("compile: 3", "compile: expected true or false"),
        ("loss: cross-entropie", "got 'cross-entropie'; did you mean 'cross-entropy'?"),
        ("model_args: depths:3", "got 'depths:3'; YAML needs a space after the colon: 'depths: 3'"),
        ("model_args: {depths:3}", "got 'depths:3'; YAML needs a space after the colon"),
        ("model_args: {depths:[1,1],dims:[8,8]}", "YAML needs a space after the colon"),
    ],
)
def test_a_value_of_another_type_in_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, message: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"{line}\n")
    assert main(["train", "--config", str(file), "--data", "images"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_checkpoint_that_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["eval", str(tmp_path / "nowhere.safetensors")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("torchdcls eval: checkpoint: expected a file, got")
    assert error.count("\n") == 1


@pytest.mark.parametrize("recipe", ["convnext_tiny-dcls-bilinear", "convnext_tiny-dcls-gaussian"])
@pytest.mark.parametrize(("words", "value"), [([], True), (["true"], True), (["false"], False)])
def test_switches_take_a_word_or_none(
    seen: list[tuple[str | None, TrainConfig]], recipe: str, words: list[str], value: bool
) -> None:
    assert main(["train", "--config", recipe, "--clamp-positions", *words, "--data", "images"]) == 0
    assert seen[0][1].clamp_positions is value


def test_fewer_epochs_shorten_the_warm_up(
    seen: list[tuple[str | None, TrainConfig]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--config", "convnext_tiny-dcls-bilinear", "--data", "images"]
    for further, warmup in (
        (["--epochs", "5"], 1.25),
        (["--epochs=60"], 15),
        (["--epochs", "100"], 20),
        (["--epochs", "30", "--warmup-epochs", "20"], 20),
        ([], 20),
    ):
        assert main([*words, *further]) == 0
        assert seen[-1][1].warmup_epochs == warmup, further
    notes = capsys.readouterr().err.splitlines()
    assert notes == [
        "torchdcls train: --warmup-epochs is 1.25 instead of 20, a quarter of --epochs 5",
        "torchdcls train: --repulsion-from is 20, which --epochs 5 does not reach: no repulsion",
        "torchdcls train: --warmup-epochs is 15 instead of 20, a quarter of --epochs 60",
    ]
    assert main([*words, "--epochs", "5", "--warmup-epochs", "5"]) == 2
    assert "--warmup-epochs: expected less than epochs, 5, got 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "resnet1"], "--model: expected a name that timm knows, got 'resnet1'"),
        (["--model-args", "{dephts: 3}"], "--model-args: resnet18 does not take {'dephts': 3}"),
        (["--model-args", "{output_stride: 3}"], "--model-args: resnet18 does not take {'output_stride': 3}"),
        (
            ["--optimizer", "adamww"],
            "--optimizer: expected a name that timm knows, got 'adamww'; did you mean 'adamw'?",
        ),
        (["--auto-augment", "foo"], "--auto-augment: expected a policy that timm knows"),
        (["--data", "nowhere"], "--data: expected a folder with train/ and val/"),
        (
            ["--val-split", "night"],
            "--val-split: expected one of the splits of 'embedded' ('train', 'test'), got 'night'",
        ),
        (["--batch-size", "60000", "--micro-batch", "100"], "--batch-size: expected at most 6000"),
        (["--clamp-positions"], "--clamp-positions: expected a model with DCLS layers, got resnet18 without any"),
        (["--resume", "nowhere"], "expected a file, got 'nowhere', which does not exist"),
        (["--device", "gpu"], "--device: expected 'auto' or a device of this machine, got 'gpu'"),
        (["--train-images", "6001"], "--train-images: expected at most 6000, as many as there are, got 6001"),
    ],
)
def test_a_dry_run_checks_every_name(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    usual = ["--model", "resnet18", "--data", "embedded", "--device", "cpu", "--image-size", "32"]
    assert main(["train", *usual, "--dry-run", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_a_dry_run_opens_the_data_and_leaves_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    images, out = runs.make_images(tmp_path / "images"), tmp_path / "run"
    assert main([*runs.command(images, out, train_images=16), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["train_images"] == 16
    assert "on images (16 training and 10 validation images, 2 classes)" in printed
    assert "# 2 epochs of 2 updates of 8 images on 1 x cpu\n" in printed
    assert not out.exists()


def test_help_agrees_with_what_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "usage: torchdcls train (--config RECIPE | --model MODEL) --data DATA" in printed
    assert "convnext_tiny_dcls_gaussian)" not in printed  # no default that is refused
    assert "default: )" not in printed


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "list"]) == 0
    assert capsys.readouterr().out.split() == recipe_names()


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    assert all(f"--{setting.replace('_', '-')}" in printed for setting in SETTINGS)
