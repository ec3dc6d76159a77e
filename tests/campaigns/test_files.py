"""The campaign of crafted files in short, and that it finds what it is there for."""

from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save

from torchdcls.models import stored

from . import files


@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:Initializing zero-element")
def test_a_part_of_it() -> None:
    cases = list(files.run(40, seed=1))
    assert [case for case in cases if case.fault is not None] == []
    assert {case.kind for case in cases} == {*files.READERS, "load_official"}


def test_the_same_seed_tries_the_same() -> None:
    names = [[case.name for case in files.run(3, seed)] for seed in (2, 2, 3)]
    assert names[0] == names[1] != names[2]


def test_without_the_check_its_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault() -> str | None:
        originals = files.Originals(tmp_path / f"originals-{len(list(tmp_path.iterdir()))}")
        write, load = files.READERS["deployment.load"]
        said = files.Said(arguments={**files.ARGUMENTS, "checkpoint_path": str(planted / "weights.pth")})
        case = files.Crafted("deployment.load", "planted", write(originals, said), load)
        return files.outcome(case, files.Place(own, planted, tmp_path / "marker"), originals)[0]

    own, planted = tmp_path / "own", files.plant(tmp_path / "planted", tmp_path / "marker")
    own.mkdir()
    assert fault() is None
    monkeypatch.setattr(stored, "check_stored", lambda *described: None)
    assert fault() == "opened weights.pth"


def test_code_that_runs_and_weights_that_differ_are_found(tmp_path: Path) -> None:
    originals = files.Originals(tmp_path / "originals")
    place = files.Place(tmp_path, files.plant(tmp_path / "planted", tmp_path / "marker"), tmp_path / "marker")
    # Of the time before there were checksums, which would tell.
    with safe_open(originals.folder / "checkpoint.safetensors", framework="pt") as file:
        about = {name: text for name, text in file.metadata().items() if name != "checksum"}
        others = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dictionary
    others = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in others.items()}
    write = files._writes(originals.folder / "x", "last.safetensors", save(others, about))
    load = files._loads_checkpoint
    found = files.outcome(files.Crafted("", "", write, load), place, originals)[0]
    assert found is not None
    assert found.startswith("other weights in ")
    code = files.Crafted("", "", lambda place: None, lambda place: place.marker.write_text("ran") and None)
    assert files.outcome(code, place, originals)[0] == "ran code"
    raises = files.Crafted("", "", lambda place: None, lambda place: {}["x"])
    assert files.outcome(raises, place, originals)[0] == "KeyError: 'x'"
