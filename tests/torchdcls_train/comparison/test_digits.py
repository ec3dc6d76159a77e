"""Delays on spoken digits: nothing leaks, neurons and statistics are right, and what a run leaves and resumes."""

import io
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from scipy.stats import ttest_1samp, ttest_rel
from torch import Tensor

from tests.torchdcls_train.comparison.made_results import made_result
from tests.torchdcls_train.data.made_recordings import SPEAKERS, write_recordings
from torchdcls.delays import SynapticDelays
from torchdcls_train.comparison.config import DigitsConfig
from torchdcls_train.comparison.digits import run as digits_run
from torchdcls_train.comparison.digits import task
from torchdcls_train.comparison.digits.findings import (
    by_speaker,
    chosen_runs,
    comparisons,
    differences,
    digit_rows,
    digits_section,
    explanations,
    findings,
    tuning_rows,
    verdict,
)
from torchdcls_train.comparison.digits.network import DenseDelays, DigitNetwork, dense_width, parameter_count
from torchdcls_train.comparison.digits.pictures import accuracy_figure
from torchdcls_train.comparison.digits.result import DigitsResult, DigitsRun
from torchdcls_train.comparison.digits.run import compare_digits
from torchdcls_train.comparison.digits.task import Spoken, Trained, fold_without, train_network
from torchdcls_train.comparison.report import markdown
from torchdcls_train.comparison.result import read_result

METHODS = ("none", "fixed", "bilinear", "triangle", "gaussian", "dense")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def config(tmp_path: Path, recordings: Path) -> DigitsConfig:
    return DigitsConfig(
        data_dir=recordings,
        methods=("none", "gaussian"),
        lrs=(0.01, 0.02),
        epochs=2,
        hidden=6,
        max_delay=4,
        batch_size=4,
        out=tmp_path / "run",
    )


def quietly(config: DigitsConfig) -> tuple[DigitsResult, str]:
    console = Console(file=io.StringIO(), width=120)
    return compare_digits(config, argv=["compare", "digits"], console=console), console.file.getvalue()  # type: ignore[attr-defined]


def spoken(numbers: int = 8) -> Spoken:
    """Two digits by three speakers: early spikes or late ones, of the inputs of each."""
    keys = [(digit, who, number) for digit in range(2) for who in SPEAKERS for number in range(numbers)]
    spikes = torch.zeros(len(keys), 6, 20, dtype=torch.bool)
    for row, (digit, who, number) in enumerate(keys):
        spikes[row, 3 * digit + SPEAKERS.index(who), (number, number + 8)] = True
    digits, names, counts = zip(*keys, strict=True)
    return Spoken(spikes, torch.tensor(digits), list(names), torch.tensor(counts))


# The task


def test_folds_leak_nothing() -> None:
    data = spoken()
    for speaker in SPEAKERS:
        fold = fold_without(data, speaker)
        parts = [set(part.tolist()) for part in (fold.train, fold.validation, fold.test)]
        assert set.union(*parts) == set(range(len(data.digits))) and sum(map(len, parts)) == len(data.digits)
        assert {data.speakers[row] for row in parts[2]} == {speaker}
        assert {data.speakers[row] for row in parts[0] | parts[1]} == set(SPEAKERS) - {speaker}
        assert data.numbers[fold.validation].max() < 5 <= data.numbers[fold.train].min()
    less = fold_without(data, "ben", 1)
    assert set(data.numbers[less.train].tolist()) == {5}
    assert torch.equal(less.test, fold_without(data, "ben").test)


def trained(data: Spoken, method: str = "bilinear", **settings: Any) -> Trained:
    given = {"widths": (6, 5, 5, 2), "max_delay": 3, "epochs": 2, "batch_size": 4, "lr": 0.02, "seed": 0}
    return train_network(method, data, fold_without(data, "anna"), **{**given, **settings})  # type: ignore[arg-type]


def test_the_speaker_of_the_test_changes_nothing_but_the_test() -> None:
    data = spoken()
    test = fold_without(data, "anna").test
    other = replace(data, spikes=data.spikes.index_fill(0, test, True))
    one, two = trained(data), trained(other)
    assert (one.validation, one.validation_loss) == (two.validation, two.validation_loss)
    for mine, theirs in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    # What it is validated on changes no weight either.
    validation = fold_without(data, "anna").validation
    three = trained(replace(data, spikes=data.spikes.index_fill(0, validation, True)))
    assert one.validation_loss != three.validation_loss
    for mine, theirs in zip(one.network.parameters(), three.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_seed_is_all_the_chance_there_is() -> None:
    data = spoken()
    state = torch.get_rng_state()
    one = trained(data).network.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    two, three = trained(data).network.state_dict(), trained(data, seed=1).network.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["delays.0.weight"], three["delays.0.weight"])


def test_digits_are_learned() -> None:
    """Which input fires says which digit it is."""
    outcome = trained(spoken(), epochs=30, widths=(6, 16, 16, 2))
    assert outcome.validation == 100
    assert outcome.delays is not None and outcome.delays.shape == (31, 16, 16)


def test_sigma_falls_and_only_delays_that_are_learned_move() -> None:
    data = spoken()
    gaussian = trained(data, "gaussian", epochs=4)
    for layer in gaussian.network.delays:
        assert isinstance(layer, SynapticDelays) and layer.sigma is not None
        assert torch.all(layer.sigma == 0.23) and not layer.sigma.requires_grad
    assert gaussian.delays is not None and not torch.equal(gaussian.delays[0], gaussian.delays[-1])
    fixed = trained(data, "fixed").network.delays[0]
    assert isinstance(fixed, SynapticDelays) and torch.equal(fixed.delay, fixed.delay.round())
    assert not fixed.position.requires_grad and fixed.delay.max() > 0


def test_rounded_accuracy_is_that_with_whole_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(network: DigitNetwork, spikes: Tensor, digits: Tensor) -> tuple[float, float]:
        delays = network.delays[0]
        return (50.0 if isinstance(delays, SynapticDelays) and delays.rounding.is_on else 75.0) + len(digits), 0.0

    data = spoken()
    monkeypatch.setattr(task, "_scores", scores)
    outcome = trained(data)
    assert (outcome.test, outcome.test_rounded, outcome.validation) == (75 + 16, 50 + 16, 75 + 20)
    assert trained(data, "none").test_rounded is trained(data, "dense").test_rounded is None


# The network


def test_neurons_against_a_plain_loop() -> None:
    network = DigitNetwork("bilinear", (4, 3, 3, 2), max_delay=2).eval()
    spikes = (torch.rand(5, 4, 12) < 0.4).float()
    current = network.norms[0](network.delays[0](spikes)) + 0.4
    network.norms[0].bias.data += 0.4
    expected = torch.zeros_like(current)
    potential = torch.zeros(5, 3)
    for step in range(12):
        potential = 0.9 * potential + current[..., step]
        expected[..., step] = (potential >= 1).float()
        potential = potential * (1 - expected[..., step])
    assert torch.equal(network.fired(spikes, 0), expected) and 0 < expected.mean() < 1


def test_gradients_of_neurons_are_those_of_the_surrogate() -> None:
    """A plain loop of torch's operators, whose threshold has the surrogate as its derivative."""

    class Threshold(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, potential: Tensor) -> Tensor:
            ctx.save_for_backward(potential)
            return (potential >= 1).to(potential.dtype)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            (potential,) = ctx.saved_tensors
            return gradient * 2.5 / (1 + (torch.pi * 2.5 * (potential - 1)) ** 2)

    network = DigitNetwork("none", (4, 3, 3, 2), max_delay=2).double().eval()
    network.norms[0].bias.data += 0.4
    spikes = (torch.rand(5, 4, 12) < 0.4).double()
    direction = torch.randn(5, 3, 12, dtype=torch.float64)
    found = torch.autograd.grad((network.fired(spikes, 0) * direction).sum(), network.delays[0].weight)
    current = network.norms[0](network.delays[0](spikes))
    potential, total = torch.zeros(5, 3), torch.zeros(())
    for step in range(12):
        potential = 0.9 * potential + current[..., step]
        fired = Threshold.apply(potential)
        total = total + (fired * direction[..., step]).sum()
        potential = potential * (1 - fired.detach())
    expected = torch.autograd.grad(total, network.delays[0].weight)
    torch.testing.assert_close(found, expected)
    assert expected[0].abs().max() > 0.01


def test_outputs_are_probabilities_that_know_the_past_alone() -> None:
    network = DigitNetwork("dense", (4, 3, 3, 2), max_delay=2).eval()
    spikes = (torch.rand(5, 4, 12) < 0.4).float()
    torch.testing.assert_close(network(spikes).exp().sum(1), torch.ones(5))
    later = spikes.clone()
    later[..., 8:] = 1 - later[..., 8:]
    layer = network.delays[0]
    assert isinstance(layer, DenseDelays)
    torch.testing.assert_close(layer(spikes)[..., :8], layer(later)[..., :8])


@pytest.mark.parametrize(("hidden", "max_delay"), [(64, 24), (6, 4), (32, 1)])
def test_a_dense_network_has_as_many_parameters_as_weights_and_delays(hidden: int, max_delay: int) -> None:
    width = dense_width(80, hidden, 10, max_delay)

    def numbers(method: str, hidden: int) -> int:
        network = DigitNetwork(method, (80, hidden, hidden, 10), max_delay)  # type: ignore[arg-type]
        return parameter_count(network.delays)

    synapses = 80 * hidden + hidden * hidden + 10 * hidden
    assert numbers("none", hidden) == numbers("fixed", hidden) == synapses
    assert numbers("bilinear", hidden) == 2 * synapses
    assert numbers("dense", width) <= 2 * synapses < numbers("dense", width + 1)


# Statistics


def told(result: DigitsResult) -> str:
    return markdown(digits_section(result, Path()))


def made(status: str = "finished", lrs: Sequence[float] = (0.01,), **accuracy: Sequence[float]) -> DigitsResult:
    """Results in which each method has these accuracies, one for each speaker."""
    speakers = [f"speaker{number}" for number in range(max(map(len, accuracy.values())))]
    runs = [
        {
            **{"speaker": speakers[number], "method": method, "seed": 0, "lr": lr, "parameters": 100},
            **{"validation": 90.0, "validation_loss": lr, "test": value, "seconds": 60.0},
            "test_rounded": value - 1 if method in ("bilinear", "triangle", "gaussian") else None,
        }
        for method, values in accuracy.items()
        for number, value in enumerate(values)
        for lr in lrs
    ]
    config = {"methods": list(accuracy), "speakers": speakers, "lrs": list(lrs), "seeds": 1, "epochs": 3}
    data = {"name": "made", "recordings": 9, "speakers": 3, "validation_recordings": 5, "position_lr_scale": 20}
    data |= {"fingerprint": "", "hidden": 64, "dense_hidden": 8}
    return made_result(DigitsResult, status=status, config=config, data=data, runs=runs)


def test_validation_chooses_and_the_test_does_not() -> None:
    result = made(lrs=(0.01, 0.02, 0.03), none=[50.0])
    scores = zip((80.0, 90.0, 90.0), (0.1, 0.5, 0.4), (99.0, 60.0, 40.0), strict=True)
    result.runs[:] = [
        replace(run, validation=validation, validation_loss=loss, test=test)
        for run, (validation, loss, test) in zip(result.runs, scores, strict=True)
    ]
    (run,) = chosen_runs(result).values()
    assert run.lr == 0.03 and by_speaker(result, "none") == {"speaker0": 40.0}
    assert tuning_rows(result)[1] == ["none", "0", "0", "1", "90.0"]
    result.runs.pop()
    assert chosen_runs(result) == {}  # before all are there nothing is chosen


def test_speakers_and_seeds_count_when_all_methods_are_done() -> None:
    """Or means would be of different ones."""
    result = made(none=[50.0, 60.0, 70.0], fixed=[53.0, 64.0])
    assert by_speaker(result, "none") == {"speaker0": 50.0, "speaker1": 60.0}
    assert differences(result, "fixed", "none") == [3.0, 4.0]
    more = [replace(run, seed=1, test=run.test + 10) for run in result.runs if run.speaker == "speaker1"]
    result.runs += [run for run in more if run.method == "fixed"]
    assert differences(result, "fixed", "none") == [3.0, 4.0]
    result.runs += [replace(run, test=69.0) for run in more if run.method == "none"]
    assert by_speaker(result, "fixed") == {"speaker0": 53.0, "speaker1": 69.0}
    assert differences(result, "fixed", "none") == [3.0, 69.0 - 64.5]


def test_intervals_are_those_of_scipy() -> None:
    none, fixed = [50.0, 55.0, 61.0, 48.0], [56.0, 57.0, 66.0, 55.0]
    result = made(none=none, fixed=fixed)
    header, of_none, of_fixed = digit_rows(result)
    interval = ttest_1samp(none, 0).confidence_interval()
    half = (interval.high - interval.low) / 2
    assert of_none[header.index("accuracy (%)")] == f"53.5 ± {half:.1f}"
    interval = ttest_rel(fixed, none).confidence_interval()
    assert of_fixed[header.index("against none")] == f"+5.0 ± {(interval.high - interval.low) / 2:.1f}"
    assert of_fixed[header.index("minutes per run")] == "1.0"
    assert comparisons(result) == [("fixed", "none")]
    assert verdict(result, "fixed", "none").endswith(
        f"(corrected interval {interval.low:+.1f} to {interval.high:+.1f}): significantly better"
    )


def test_a_verdict_is_corrected_for_the_number_of_comparisons() -> None:
    """p is 0.02: significant alone, and not among four."""
    none, better = [50.0, 55.0, 61.0, 48.0], [56.0, 56.0, 66.0, 55.0]
    assert 0.05 / 4 < ttest_rel(better, none).pvalue < 0.05
    assert "significantly better" in verdict(made(none=none, bilinear=better), "bilinear", "none")
    many = made(none=none, fixed=none[::-1], bilinear=better)
    assert len(comparisons(many)) == 3
    many = made(none=none, fixed=none[::-1], bilinear=better, triangle=none)
    assert len(comparisons(many)) == 5
    assert verdict(many, "bilinear", "none").endswith("not significant")
    assert "significantly worse" in verdict(made(none=better, bilinear=none), "bilinear", "none")


def test_what_is_said() -> None:
    none, learned = [50.0, 55.0, 61.0], [70.0, 75.0, 81.5]
    text = " ".join(findings(made(none=none, bilinear=learned, dense=none)))
    assert "best first: bilinear 75.5 %, none 55.3 %, dense 55.3 %." in text
    assert "Do learned delays help?" in text and "Are learned delays better than a dense kernel" in text
    assert "better than fixed ones" not in text  # which were not trained
    assert "Rounding delays to whole steps changes accuracy by these points: bilinear -1.0 ± 0.0." in text
    told = " ".join(explanations(made(lrs=(0.01, 0.02), none=none, fixed=learned)))
    assert "learning rates 0.01, 0.02" in told and "5 other recordings" in told and "8 neurons" in told
    assert "was not tuned" in " ".join(explanations(made(none=none)))
    assert findings(replace(made(none=none), runs=[])) == []


def test_the_picture_of_accuracies_has_speakers_that_are_done() -> None:
    result = made(none=[50.0, 60.0], fixed=[53.0, 59.0])
    result.config = replace(result.config, speakers=["speaker0", "speaker1", "nobody"])
    (axes,) = accuracy_figure(result).axes
    assert [line.get_label() for line in axes.lines] == ["speaker0", "speaker1"]
    assert [list(line.get_ydata()) for line in axes.lines] == [[50, 53], [60, 59]]
    assert [bar.get_height() for bar in axes.patches] == [55, 56]


# A run


def test_everything_a_run_leaves(config: DigitsConfig) -> None:
    config = replace(config, methods=METHODS, lrs=(0.02,))
    result, printed = quietly(config)
    folder = config.out
    assert folder is not None
    stored = json.loads((folder / "results.json").read_text())
    assert stored == json.loads(json.dumps(result.json()))
    assert (result.status, result.complete) == ("finished", True)
    assert result.command == "torchdcls compare digits" and result.versions["torch"]
    assert result.config.speakers == SPEAKERS and not {"out", "data_dir", "threads"} & set(stored["config"])
    assert len(result.runs) == 6 * 3
    text = (folder / "table.md").read_text()
    for part in (*METHODS, "against none", "± "):
        assert part in printed and part in text
    names = ["accuracy.png", "delays.png", "fields.png", "raster.png"]
    for name in names:
        with Image.open(folder / name) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 1, f"{name} is blank"
    report = (folder / "report.html").read_text()
    assert report.count("data:image/png") == len(names)
    assert all(sentence in unescape(report) for sentence in [*findings(result), *explanations(result)])


def stopped_after(runs: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Makes Ctrl-C come in the run after so many; what each is asked for."""
    calls: list[tuple[Any, ...]] = []

    def interrupted(method: Any, *args: Any, **kwargs: Any) -> Trained:
        calls.append((method, kwargs["seed"], kwargs["lr"]))
        if len(calls) > runs:
            raise KeyboardInterrupt
        return train_network(method, *args, **kwargs)

    monkeypatch.setattr(digits_run, "train_network", interrupted)
    return calls


def test_an_interrupted_run_resumes_to_the_same_result(
    config: DigitsConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        stopped_after(5, patched)
        result, printed = quietly(config)
    assert result.status == "interrupted" and len(result.runs) == 5
    assert "Interrupted; rerun the same command with --out" in printed
    assert "not complete (interrupted)" in printed and "not complete (interrupted)" in told(result)
    with monkeypatch.context() as patched:
        calls = stopped_after(100, patched)
        resumed, printed = quietly(config)
    assert len(calls) == 12 - 5 and "7 of them left" in printed
    assert resumed.status == "finished" and len(resumed.resumed) == 1
    whole, _ = quietly(replace(config, out=tmp_path / "whole"))

    def without_times(result: DigitsResult) -> list[DigitsRun]:
        return [replace(run, seconds=0.0) for run in result.runs]

    assert without_times(resumed) == without_times(whole)
    with monkeypatch.context() as patched:
        calls = stopped_after(0, patched)
        assert quietly(config)[0] == resumed and calls == []
    more, _ = quietly(replace(config, seeds=2))  # more seeds may be asked for later
    assert len(more.runs) == 24 and more.runs[:12] == resumed.runs


def test_a_killed_run_resumes(config: DigitsConfig, recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a chance to tidy up."""
    assert config.out is not None
    # So many runs that it is killed long before the last one.
    config = replace(config, seeds=50)
    settings = "--methods none gaussian --lrs 0.01 0.02 --epochs 2 --hidden 6 --max-delay 4 --batch-size 4 --seeds 50"
    places = ["--data-dir", str(recordings), "--out", str(config.out)]
    words = [sys.executable, "-m", "torchdcls", "compare", "digits", *shlex.split(settings), *places]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    path = config.out / "results.json"
    while process.poll() is None and not (path.exists() and len(json.loads(path.read_text())["runs"]) >= 2):
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = read_result(DigitsResult, path)
    assert kept.status == "running" and 2 <= len(kept.runs) < 600
    stopped_after(1, monkeypatch)
    result, _ = quietly(config)
    assert result.runs[:-1] == kept.runs and result.date == kept.date


def test_what_cannot_be_resumed_is_refused(config: DigitsConfig, tmp_path: Path) -> None:
    quietly(replace(config, methods=("none",), lrs=(0.02,), seeds=2))
    for change, message in (
        ({"epochs": 3}, "epochs was 2, is 3"),
        ({"methods": ("none", "fixed")}, r"methods was \['none'\], is \['none', 'fixed'\]"),
        ({"seeds": 1}, "seeds was 2, is 1"),
        ({"data_dir": write_recordings(tmp_path / "others", numbers=range(4, 9))}, "fingerprint was .*, is "),
    ):
        with pytest.raises(ValueError, match=f"out: expected the settings and data of the comparison in .*{message}"):
            quietly(replace(config, **{"methods": ("none",), "lrs": (0.02,), "seeds": 2, **change}))
    assert config.out is not None
    for content in ("{}", "half of {", '{"benchmark": "positions", "config": {}, "data": {}, "runs": []}'):
        (config.out / "results.json").write_text(content)
        with pytest.raises(ValueError, match="out: expected a folder with a comparison of digits or with none, got"):
            quietly(config)
        assert (config.out / "results.json").read_text() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("cubic",)}, "methods: expected one of .* got 'cubic'"),
        ({"methods": ("none", "none")}, "methods: expected each once"),
        ({"speakers": ("dora",)}, "speakers: expected one of 'anna', 'ben', 'carl', got 'dora'"),
        ({"speakers": ()}, "speakers: expected each once, at least one"),
        ({"lrs": ()}, "lrs: expected each once, at least one"),
        ({"lrs": (0.0,)}, "lrs: expected finite numbers above 0, got 0"),
        ({"lrs": (float("nan"),)}, "lrs: expected finite numbers above 0, got nan"),
        ({"seeds": 0}, "seeds: expected at least 1, got 0"),
        ({"hidden": 0}, "hidden: expected at least 1, got 0"),
        ({"max_delay": 0}, "max_delay: expected at least 1, got 0"),
        ({"batch_size": 1}, "batch_size: expected at least 2, got 1"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused_before_training(config: DigitsConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quietly(replace(config, **change))
    assert config.out is not None
    assert not config.out.exists()


def test_recordings_that_cannot_be_split_are_refused(config: DigitsConfig, tmp_path: Path) -> None:
    alone = write_recordings(tmp_path / "alone", speakers=("anna",))
    with pytest.raises(ValueError, match="data_dir: expected recordings of at least 2 speakers, got anna alone"):
        quietly(replace(config, data_dir=alone))
    few = write_recordings(tmp_path / "few", numbers=range(3))
    with pytest.raises(
        ValueError, match=r"data_dir: expected recordings with numbers below 5 for validation, .* got 0 to 2"
    ):
        quietly(replace(config, data_dir=few))


def test_a_loss_that_is_not_finite_ends_the_run(config: DigitsConfig) -> None:
    with pytest.raises(FloatingPointError, match=r"the training loss of none with lr 1e\+30 is \w+ in epoch \d"):
        quietly(replace(config, lrs=(1e30,)))
    assert config.out is not None
    assert json.loads((config.out / "results.json").read_text())["status"] == "failed: FloatingPointError"


def test_quick_is_short(config: DigitsConfig) -> None:
    quick, usual = DigitsConfig(quick=True).checked(), DigitsConfig().checked()
    assert (quick.epochs, quick.train_recordings, len(quick.lrs)) == (2, 10, 1)
    assert (usual.epochs, usual.train_recordings, len(usual.lrs)) == (8, None, 3)
    result, printed = quietly(replace(config, quick=True))
    assert result.config.speakers == SPEAKERS[:2] and len(result.runs) == 4
    assert "its accuracies mean nothing" in printed and "best first" not in printed + told(result)
