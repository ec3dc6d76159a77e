"""The package's recipes are whole, and say what the papers say; users' own start from them and cannot err unseen."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml

import torchdcls_train
from torchdcls._checks import nearest
from torchdcls.models import HOSTS
from torchdcls_train.recipes import load_recipe, recipe_names
from torchdcls_train.settings import SETTINGS, TrainConfig

FOLDER = Path(torchdcls_train.__file__).parent / "recipes"
FAMILIES = sorted(f"families/{file.stem}" for file in FOLDER.glob("*.yaml"))
INTERPOLATIONS = ("bilinear", "triangle", "gaussian")
# Of the machine and of one run; a recipe is silent about them.
NOT_OF_A_RECIPE = {
    *("model_args", "num_classes", "data", "data_dir", "train_split", "val_split", "train_images", "val_images"),
    "max_image_pixels",
    *("input_key", "target_key", "max_unreadable", "workers", "color_jitter", "precision", "channels_last", "compile"),
    *(
        "device",
        "threads",
        "seed",
        "out",
        "resume",
        "initial_checkpoint",
        "reset_head",
        "checkpoint_every",
        "log_every",
        "tensorboard",
    ),
}
# Where the default, which compares with nothing and clamps nothing, is meant.
ONLY_WHERE_NEEDED = {"model", "drop_path", "clamp_positions", "repulsion_from", "loss"}


def as_config(settings: dict[str, Any]) -> TrainConfig:
    return TrainConfig(**{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})


def models_of(family: str) -> dict[str, dict[str, Any]]:
    """The lines of a family's models."""
    models: dict[str, dict[str, Any]] = yaml.safe_load(
        (FOLDER / f"{family.removeprefix('families/')}.yaml").read_text()
    )["models"]
    return models


def test_a_recipe_for_each_model_and_each_host() -> None:
    models = [host.name for host in HOSTS]
    models += [f"{host}-dcls-{interpolation}" for host in models for interpolation in INTERPOLATIONS]
    assert recipe_names() == sorted(models)
    assert len(models) == 40
    assert len(FAMILIES) == 5


@pytest.mark.parametrize("name", recipe_names())
def test_recipe(name: str) -> None:
    recipe = load_recipe(name)
    config = as_config(recipe)
    assert config.model == name.replace("-", "_")
    assert timm.is_model(config.model)
    assert config.drop_path == recipe["drop_path"] > 0
    bilinear = name.endswith("-dcls-bilinear")
    assert config.clamp_positions == bilinear
    assert config.repulsion_from == (20 if bilinear else None)
    assert config.position_lr_scale == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_models_differ_from_their_family_only_in_what_they_say(family: str) -> None:
    shared = load_recipe(family)
    for model, own in models_of(family).items():
        assert own.keys() == {"drop_path"}
        for suffix in ("", "-dcls-triangle", "-dcls-gaussian", "-dcls-bilinear"):
            expected = {**shared, **own, "model": (model + suffix).replace("-", "_")}
            if suffix == "-dcls-bilinear":
                expected |= {"clamp_positions": True, "repulsion_from": 20}
            assert load_recipe(model + suffix) == expected


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("families/caformer", "14bc62bcb673537c"),
        ("families/convformer", "47bc6bd8a4a3f003"),
        ("families/convnext", "3b3ba3bf033a6f27"),
        ("families/fastvit", "189920a888a9d388"),
        ("families/resnet50", "5aa2706d4f162e9e"),
    ],
)
def test_no_setting_changes_unseen(family: str, expected: str) -> None:
    """Of all settings of a family's recipes; a hash that changes on purpose is written anew here."""
    names = [
        f"{model}{suffix}"
        for model in models_of(family)
        for suffix in ("", *(f"-dcls-{name}" for name in INTERPOLATIONS))
    ]
    resolved = {name: load_recipe(name) for name in (family, *names)}
    assert hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:16] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_all_of_a_recipes_settings(family: str) -> None:
    settings = load_recipe(family)
    assert settings.keys() - {"loss"} == {*SETTINGS} - NOT_OF_A_RECIPE - ONLY_WHERE_NEEDED
    # A batch that others than one process can share.
    assert settings["batch_size"] % (8 * settings["micro_batch"]) == 0
    assert settings["lr_batch"] == settings["batch_size"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("convnext_tiny-dcls-gaussian", {"drop_path": 0.1, "lr": 4e-3, "min_lr": 1e-6, "ema": 0.9999, "mixup": 0.8}),
        ("convnext_small", {"drop_path": 0.4, "warmup_epochs": 20, "weight_decay": 0.05, "random_erasing": 0.25}),
        ("convnext_base-dcls-bilinear", {"drop_path": 0.5, "auto_augment": "rand-m9-mstd0.5-inc1", "cutmix": 1.0}),
        ("convformer_b36-dcls-triangle", {"drop_path": 0.6, "optimizer": "adamw", "lr": 4e-3, "min_lr": 1e-5}),
        ("caformer_s18-dcls-gaussian", {"drop_path": 0.15, "optimizer": "lamb", "lr": 8e-3, "ema": None}),
        ("fastvit_sa24", {"drop_path": 0.1, "batch_size": 1024, "lr": 1e-3, "mixup": 0.2, "image_size": 256}),
        ("resnet50-dcls-bilinear", {"drop_path": 0.05, "optimizer": "lamb", "lr": 5e-3, "loss": "binary"}),
    ],
)
def test_values_of_the_papers(name: str, expected: dict[str, Any]) -> None:
    recipe = load_recipe(name)
    assert {key: recipe[key] for key in expected} == expected
    assert all(isinstance(recipe[key], float) for key in ("lr", "min_lr", "weight_decay"))
    assert as_config(recipe).scaled_lr == recipe["lr"]


@pytest.mark.parametrize("family", FAMILIES)
def test_images_have_the_size_of_the_models(family: str) -> None:
    recipe = load_recipe(family)
    for model in models_of(family):
        cfg = timm.get_pretrained_cfg(f"{model}_dcls_gaussian")
        assert (cfg.input_size[1], cfg.crop_pct) == (recipe["image_size"], recipe["crop_pct"])


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path, "shared/short.yml", "base: convnext_tiny-dcls-gaussian\nepochs: 30\nlr: 1e-3\nclip_grad: 5\n")
    file = write(tmp_path, "mine/run.yaml", "base: ../shared/short.yml\nlr: 2e-3\nclip_grad: null\n")
    expected = {**load_recipe("convnext_tiny-dcls-gaussian"), "epochs": 30, "lr": 0.002, "clip_grad": None}
    assert load_recipe(file) == load_recipe(str(file)) == expected
    assert isinstance(load_recipe(file)["lr"], float)


def test_a_file_need_not_have_a_base(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, "a.yaml", "model: resnet18\nscale: [0.5, 1]\n")) == {
        "model": "resnet18",
        "scale": [0.5, 1],
    }
    assert load_recipe(write(tmp_path, "b.yaml", "# nothing yet\n")) == {}


def test_a_file_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "resnet50.yaml", "base: families/resnet50\nepochs: 1\n")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("resnet50.yaml")["epochs"] == 1
    assert load_recipe("resnet50")["epochs"] == 300  # a name is the package's recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("warmup_epoch: 5\n", r"a\.yaml: unknown setting 'warmup_epoch'; did you mean 'warmup_epochs'\?"),
        ("bases: families/convnext\n", r"a\.yaml: unknown setting 'bases'; did you mean 'base'\?"),
        ("1: 5\n", r"a\.yaml: unknown setting 1; no name is similar"),
        ("base: families/convnxt\n", r"a\.yaml: base: .* got 'families/convnxt'; did you mean 'families/convnext'\?"),
        ("base: [families/convnext]\n", r"a\.yaml: expected the name or the file of a recipe as base, got \['fam"),
        ("base: missing.yaml\n", r"missing\.yaml: expected a YAML file, which cannot be read: No such file"),
        ("- lr: 1\n", r"a\.yaml: expected lines of `setting: value`, got \["),
        ("lr 1\n", r"a\.yaml: expected lines of `setting: value`, got 'lr 1'"),
        ("lr: [1\n", r"a\.yaml: expected a YAML file, got something else: .* line 2"),
        ("base: a.yaml\n", r"a\.yaml: expected a base that does not lead back, got .*a\.yaml -> .*a\.yaml$"),
        ("base: ../x/../b.yaml\n", r"b\.yaml: expected a base that does not lead back, got .*a\.yaml -> .*b\.yaml ->"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "x/c.yaml", "")
    write(tmp_path, "b.yaml", "base: x/a.yaml\n")
    with pytest.raises(ValueError, match=message):
        load_recipe(write(tmp_path, "x/a.yaml", text))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xff\xfe\x00lr")
    with pytest.raises(ValueError, match=r"a\.yaml: expected a YAML file, got something else"):
        load_recipe(file)
    with pytest.raises(ValueError, match=r"cannot be read: Is a directory"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("convnext_tiny_dcls_gaussian", "convnext_tiny-dcls-gaussian"),
        ("ConvNeXt_Tiny", "convnext_tiny"),
        ("families/resnet", "families/resnet50"),
    ],
)
def test_unknown_name(name: str, meant: str) -> None:
    message = f"config: expected a recipe's name or a YAML file, got {name!r}; did you mean {meant!r}?"
    with pytest.raises(ValueError) as caught:
        load_recipe(name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "meant"), [("LR", "lr"), ("weight-decay", "weight_decay"), ("droppath", "drop_path"), ("qqq", None)]
)
def test_nearest(name: str, meant: str | None) -> None:
    assert nearest(name, SETTINGS) == ("no name is similar" if meant is None else f"did you mean {meant!r}?")
