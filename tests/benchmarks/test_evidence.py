"""What the README and the page of comparisons say of records, each known by the name of its data."""

import json
from pathlib import Path
from typing import Any

from benchmarks.evidence import comparison_section, evidence, newest_comparisons
from benchmarks.tables import main, newest_result
from studies.results import results_of
from tests.studies.made_study import made_study, toy

CONCLUSION = "No difference from 7x7 is significant; 1 point would have been."


def compared(name: str, date: str = "2026-01-01", **more: Any) -> dict[str, Any]:
    return {
        "date": date,
        "complete": True,
        "data": {"name": name, "train_images": 6000},
        "config": {"model": "convmixer", "epochs": 4, "seeds": 6},
        "table": f"| {name} {date} |\n\n- {CONCLUSION}\n- bilinear: +0.10 points against 7x7: not significant.",
        "machine": {"cpu": "AMD EPYC", "cores": 2, "os": "Linux"},
        "versions": {},
        "commit": None,
        "dirty": None,
        "command": "torchdcls compare images",
        **more,
    }


def put(folder: Path, *results: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, result in enumerate(results):
        (folder / f"comparison-{number}.json").write_text(json.dumps(result))
    return folder


def test_the_newest_of_each_data_set_and_the_embedded_images_first(tmp_path: Path) -> None:
    put(
        tmp_path,
        compared("cifar10-part"),
        compared("fashion-mnist-subset", "2026-01-02"),
        compared("fashion-mnist-subset", "2026-01-03"),
        compared("fashion-mnist-subset", "2026-01-04", complete=False),
    )
    found = [(result["data"]["name"], result["date"]) for result in newest_comparisons(tmp_path)]
    assert found == [("fashion-mnist-subset", "2026-01-03"), ("cifar10-part", "2026-01-01")]
    assert newest_result("comparison", tmp_path / "empty") is None


def test_a_section_begins_with_its_question_and_conclusion() -> None:
    section = comparison_section(compared("cifar10-part"), "Machine.")
    assert section.startswith("### On 10,000 images of CIFAR-10\n\nColor images")
    assert "--data cifar10 --train-images 10000" in section
    point = "- bilinear: +0.10 points against 7x7: not significant."
    assert f"\n\n**{CONCLUSION}**\n\nOf the learning rates 0.01" in section
    assert f"(#limits-and-your-own-data)).\n\n| cifar10-part 2026-01-01 |\n\n{point}\n\nMachine.\n" in section
    assert "](images/compare-cifar10-part-kernels.png)" in section
    assert comparison_section(compared("mine"), "").startswith("### On mine\n\n**No difference")


def test_a_section_tells_of_older_runs_on_the_same_images(tmp_path: Path) -> None:
    point = "- bilinear: -1.00 points against 7x7, 95 % interval -2.00 to +0.00 over 3 seeds, paired: not significant."
    config = {"model": "old", "epochs": 1, "lr": 0.1}
    older = compared("mine", "2025-12-31", table=f"| a |\n\n{point}", config={**config, "seeds": 3})
    (newest,) = newest_comparisons(put(tmp_path, older, compared("mine")))
    told = (
        "An older run on these images (2025-12-31: old, 1 epoch, 3 seeds, learning rate 0.1) differed from 7x7 by these"
    )
    section = comparison_section(newest, "Machine.")
    assert told in section and ": bilinear -1.00 (-2.00 to +0.00).\n\nMachine." in section
    assert "older run" not in comparison_section(compared("mine"), "Machine.")


def test_the_page_has_all_of_them(tmp_path: Path) -> None:
    results = put(tmp_path / "results", compared("mine"), compared("fashion-mnist-subset"))
    readme = tmp_path / "README.md"
    readme.write_text("".join(f"<!-- table:{it} -->\n<!-- /table:{it} -->\n\n" for it in ("comparison", "evidence")))
    assert main(["--root", str(tmp_path), "--results", str(results)]) == 0
    text = readme.read_text()
    assert (
        0
        < text.index("### On 6,000 images of Fashion-MNIST")
        < text.index("### On mine")
        < text.index("**Networks on mine**")
    )


def test_evidence_is_a_list_of_ranges_and_conclusions() -> None:
    positions = {
        "table": "| a |\n\n- Edges: 5 to 78 %.\n- Images: 59 to 73 %.\n- More.",
        "config": {"inputs": ["e", "i"]},
    }
    study = results_of(made_study(toy()))
    first, second, third = evidence(positions, [compared("mine")], [study]).splitlines()
    assert (
        first
        == "- **Elements look for known taps** (`torchdcls compare positions`). Edges: 5 to 78 %. Images: 59 to 73 %."
    )
    assert second == (
        "- **Networks on mine** (`torchdcls compare images`: convmixer, 4 epochs, 6 seeds). Against 7x7 at no more "
        f"parameters: bilinear +0.10 points. {CONCLUSION} The learning rate was not tuned. Fixed positions were "
        "not compared."
    )
    assert third.startswith("- **Study made** (made, 40 training images, 1 epoch, 2 seeds). DCLS differs from 7x7 by ")
    assert "in 1 difference. Those below" in third


def test_evidence_says_nothing_of_one_seed_and_what_is_not_complete() -> None:
    one_seed = compared("mine", table="| a |\n\n- bilinear: +0.1 points.")
    (told,) = evidence(None, [one_seed], [results_of(made_study(toy(), cells=1))]).splitlines()
    assert told.startswith("- **Study made**") and "fewer than 2 seeds; 1 of " in told
    assert told.endswith("runs, not complete). No difference is known yet.")
