"""What result files say about themselves."""

import json
import platform
import socket
from datetime import datetime
from pathlib import Path

import pytest
import torch

from benchmarks import record


def test_fields() -> None:
    fields = record.record("construction", ["construction", "--turns", "3"], ["torch", "torchdcls"])
    assert fields["benchmark"] == "construction"
    assert fields["command"] == "python -m benchmarks.run construction --turns 3"
    assert datetime.fromisoformat(fields["date"]).utcoffset() is not None
    assert fields["versions"]["Python"] == platform.python_version()
    assert fields["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert set(fields["versions"]) == {"Python", "torch", "torchdcls"}
    assert set(fields["machine"]) == {"cpu", "cores", "memory_gib", "os"}
    assert {"commit", "dirty"} <= set(fields)
    assert fields["load"] is None or fields["load"] >= 0


def test_neither_host_nor_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "a-host-of-mine")
    monkeypatch.setattr(platform, "node", lambda: "a-host-of-mine")
    text = json.dumps(record.record("construction", ["construction", "--out", "/some/where"], ["torch"]))
    for private in ("a-host-of-mine", str(record.RESULTS.parents[1]), "/some/where"):
        assert private not in text


@pytest.mark.parametrize(
    ("cpu", "cores", "expected"),
    [
        ("AMD EPYC", 2, "amd-epyc-2-cores"),
        ("AMD EPYC 7763 64-Core Processor", 64, "amd-epyc-7763-64-cores"),
        ("Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz", 32, "intel-xeon-gold-6130-32-cores"),
        ("Apple M2", 8, "apple-m2-8-cores"),
    ],
)
def test_slug(cpu: str, cores: int, expected: str) -> None:
    assert record.slug({"cpu": cpu, "cores": cores}) == expected


@pytest.mark.parametrize(
    ("commit", "dirty", "name"),
    [
        ("0123456789abcdef", False, "conv-amd-epyc-2-cores-0123456789.json"),
        ("0123456789abcdef", True, "conv-amd-epyc-2-cores-0123456789-dirty.json"),
        (None, None, "conv-amd-epyc-2-cores-no-commit.json"),
    ],
)
def test_write(tmp_path: Path, commit: str | None, dirty: bool | None, name: str) -> None:
    machine = {"cpu": "AMD EPYC", "cores": 2}
    result = {"benchmark": "conv", "commit": commit, "dirty": dirty, "machine": machine, "x": 1.5}
    path = record.write(result, tmp_path / "not" / "there")
    assert path == tmp_path / "not" / "there" / name
    assert json.loads(path.read_text()) == result
