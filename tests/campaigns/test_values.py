"""The campaign of special values runs, and finds a fault that is planted."""

from torchdcls.ops import kernel, separable

from .values import run


def test_a_few_cases_pass_and_repeat():
    cases = list(run(20, 0))
    assert [case.name for case in cases if case.fault is not None] == []
    assert [(case.kind, case.name) for case in cases] == [(case.kind, case.name) for case in run(20, 0)]
    assert len({case.name for case in cases}) == 20


def test_a_planted_fault_is_found(monkeypatch):
    """Positions far off are left where they are, and their distance overflows."""
    monkeypatch.setattr(kernel, "can_fuse", lambda *_: False)
    monkeypatch.setattr(separable, "_near", lambda position, inverse, profile: position)
    assert any("where float64 has a number" in (case.fault or "") for case in run(300, 0) if "position" in case.kind)
