"""Whether two computations give the same numbers: what is wrong is not timed."""

from torch import Tensor


class ParityError(Exception):
    """Results differ, so their times mean nothing."""


def check_parity(what: str, result: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Compares a result with what it should be, of the same shape.

    Args:
        what: Names the result in the error.
        result: What was computed.
        wanted: What it should be.
        tolerance: Largest difference allowed, as a share of the largest value wanted.

    Raises:
        ParityError: They differ by more.
    """
    error = ((result - wanted).abs().max() / wanted.abs().max()).item()
    if not error <= tolerance:
        raise ParityError(f"{what} differs by {error:.1e} of its largest value")
