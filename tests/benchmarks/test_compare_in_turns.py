"""Timing in turns, with callables and a clock that are made up."""

import itertools
import math

import pytest

from benchmarks.timing import Timings, compare_in_turns


class Clock:
    """A clock that stands still unless a callable moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, *seconds: float):
        """A callable whose calls take these times, again and again."""
        durations = itertools.cycle(seconds)

        def run() -> None:
            self.now += next(durations)

        return run


def test_ratio_of_constant_times() -> None:
    clock = Clock()
    comparison = compare_in_turns(clock.takes(0.5), clock.takes(2.0), turns=4, clock=clock)
    assert comparison.candidate == (0.5,) * 4
    assert comparison.ratios == (4.0,) * 4
    assert comparison.ratio == 4
    assert comparison.spread == (4, 4)
    assert comparison.verdict == "faster"


def test_first_call_of_a_turn_is_not_timed() -> None:
    clock = Clock()
    # Four calls a turn: one untimed and three timed.
    candidate = clock.takes(100, 1, 1, 1)
    comparison = compare_in_turns(candidate, clock.takes(1), turns=3, seconds=0.1, least_calls=3, clock=clock)
    assert comparison.candidate == (1, 1, 1)


def test_a_turn_keeps_the_median_call() -> None:
    clock = Clock()
    candidate = clock.takes(1, 1, 9, 2)
    comparison = compare_in_turns(candidate, clock.takes(1), turns=1, seconds=0, least_calls=3, clock=clock)
    assert comparison.candidate == (2,)


def test_calls_go_on_until_the_time_is_up() -> None:
    clock = Clock()
    calls = []
    run = clock.takes(0.25)

    def candidate() -> None:
        calls.append(clock.now)
        run()

    compare_in_turns(candidate, clock.takes(1), turns=1, seconds=2.0, least_calls=3, clock=clock)
    assert len(calls) == 1 + 8


def test_the_sides_take_turns_and_swap_who_goes_first() -> None:
    clock = Clock()
    order: list[str] = []
    tick = clock.takes(1)

    def side(name: str):
        def run() -> None:
            order.append(name)
            tick()

        return run

    compare_in_turns(side("c"), side("b"), turns=3, seconds=0, least_calls=1, clock=clock)
    assert "".join(order) == "ccbb" + "bbcc" + "ccbb"


def test_after_turn_is_called_once_a_turn() -> None:
    clock = Clock()
    seen: list[None] = []
    compare_in_turns(clock.takes(1), clock.takes(1), turns=5, clock=clock, after_turn=lambda: seen.append(None))
    assert len(seen) == 5


@pytest.mark.parametrize("setting", [{"turns": 0}, {"turns": 1, "least_calls": 0}])
def test_too_few_turns_or_calls(setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        compare_in_turns(lambda: None, lambda: None, **setting)


def test_drift_of_the_machine_cancels() -> None:
    speeds = [1.0, 1.5, 2.0, 4.0, 8.0, 3.0]
    comparison = Timings(tuple(speeds), tuple(3 * speed for speed in speeds))
    assert comparison.spread == (3, 3)


def test_difference_inside_the_spread_is_none() -> None:
    comparison = Timings((1.0,) * 7, (0.9, 1.2, 1.1, 0.8, 1.3, 1.2, 1.1))
    assert comparison.ratio == 1.1
    assert comparison.verdict == "no difference"


def test_slower() -> None:
    assert Timings((1.0,) * 7, (0.5, 0.6, 0.7, 0.8, 0.5, 0.6, 0.7)).verdict == "slower"


def test_one_turn_shows_no_difference() -> None:
    assert Timings((1.0,), (50.0,)).verdict == "no difference"


@pytest.mark.parametrize("count", range(1, 30))
def test_spread_is_the_narrowest_that_holds_the_median_with_95_percent(count: int) -> None:
    low, high = Timings((1.0,) * count, tuple(map(float, range(1, count + 1)))).spread
    assert low + high == count + 1

    def holds(rank: int) -> float:
        # Chance that the true median lies between the rank-th smallest and the rank-th largest value.
        return 1 - 2 * sum(math.comb(count, i) for i in range(rank)) / 2**count

    rank = int(low)
    assert holds(rank) >= 0.95 or rank == 1
    assert holds(rank + 1) < 0.95 or rank + 1 > count - rank


def test_json_is_in_milliseconds() -> None:
    fields = Timings((0.001, 0.002, 0.003), (0.01, 0.02, 0.03)).to_json()
    assert fields["candidate_ms"] == pytest.approx(2)
    assert fields["baseline_ms"] == pytest.approx(20)
    assert fields["baseline_ms_by_turn"] == pytest.approx([10, 20, 30])
    assert fields["ratio_by_turn"] == pytest.approx([10, 10, 10])
    assert fields["spread"] == pytest.approx([10, 10])
    assert fields["verdict"] == "faster"
