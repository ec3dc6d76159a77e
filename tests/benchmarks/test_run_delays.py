"""The benchmark of learned delays from its command to its table, on layers small enough to be quick."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import delays
from benchmarks.run import main
from benchmarks.tables import TABLES
from benchmarks.timing import ParityError

pytest.importorskip("DCLS")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"NEURONS": 12, "MAX_DELAY": 4, "STEPS": 10, "BATCH": 2, "RATE": 0.5}
    network = {"WIDTHS": (6, 8, 8, 3), "NETWORK_DELAY": 4, "NETWORK_BATCH": 3}
    for name, value in (small | network).items():
        monkeypatch.setattr(delays, name, value)


def test_writes_a_result_and_its_table(tmp_path: Path) -> None:
    assert main(["delays", "--turns", "2", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("delays-*.json")
    result = json.loads(path.read_text())
    assert [entry["name"] for entry in result["problems"]] == list(delays.PROBLEMS) and result["complete"]
    by_name = {entry["name"]: entry for entry in result["problems"]}
    assert by_name["memory"]["candidate_bytes"] < by_name["memory"]["baseline_bytes"]
    network = by_name["network"]
    assert network["candidate_ms"] == pytest.approx(
        delays.EPOCH * sum(network["candidate_ms_by_turn"]) / len(network["candidate_ms_by_turn"])
    )
    table = TABLES["delays"](result)
    assert "| synaptic, rounded, against DCLS |" in table and "times the memory" in table
    assert "12 to 12 neurons, windows of 5 steps" in table and "benchmarks.run delays --turns 2`" in table


@pytest.mark.parametrize("name", ["synaptic", "rounded", "step", "network", "axonal"])
def test_nothing_is_measured_where_sides_differ(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = delays.SynapticDelays if name != "axonal" else delays.AxonalDelays
    forward = own.forward
    monkeypatch.setattr(own, "forward", lambda self, input: 2 * forward(self, input))
    assert main(["delays", "--problem", name, "--turns", "1", "--out", str(tmp_path)]) == 1
    with pytest.raises(ParityError, match=name):
        delays.verify([name])
    assert not list(tmp_path.iterdir())


def test_recurrent_delays_are_compared_with_a_loop_of_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = delays.RecurrentDelays.forward
    monkeypatch.setattr(delays.RecurrentDelays, "forward", lambda self, input: (2 * forward(self, input)[0], None))
    with pytest.raises(ParityError, match="recurrent: result 0"):
        delays.verify(["recurrent"])


def test_neurons_fire_and_reset_and_learn() -> None:
    currents = torch.tensor([0.5, 0.6, 1.2, 0.999, 0.0]).view(5, 1, 1).requires_grad_()
    spikes = delays._Spikes.apply(currents)
    # 0.5 leaves 0.0025 of itself a step later; after a spike nothing is left.
    assert spikes.flatten().tolist() == [0, 0, 1, 0, 0]
    spikes.sum().backward()
    assert (currents.grad > 0).all()
