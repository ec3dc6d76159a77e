"""Bytes saved for backward, on graphs small enough to count by hand."""

import torch

from benchmarks.memory import saved_bytes


def test_inputs_are_not_counted_and_results_are() -> None:
    x = torch.randn(1000, requires_grad=True)
    # The square saves x, a parameter here; the exponential saves its result of 4000 bytes.
    assert saved_bytes(lambda: (x * x).exp(), [x]) == 4000
    assert saved_bytes(lambda: (x * x).exp(), []) == 8000


def test_a_storage_counts_once_and_whole() -> None:
    x = torch.randn(1000, requires_grad=True)

    def forward() -> torch.Tensor:
        y = x.exp()  # saves y
        return y[:10] * y[10:20].sin()  # saves y[:10], y[10:20] and the sine of 40 bytes

    assert saved_bytes(forward, [x]) == 4000 + 40


def test_views_of_a_parameter_are_not_counted() -> None:
    x = torch.randn(10, 100, requires_grad=True)
    assert saved_bytes(lambda: x.t()[5:].sin(), [x]) == 0


def test_nothing_is_saved_without_gradients() -> None:
    x = torch.randn(1000)
    assert saved_bytes(lambda: x.exp(), [x]) == 0


def test_saved_tensors_that_are_dropped_keep_their_address() -> None:
    x = torch.randn(1000, requires_grad=True)

    def forward() -> None:
        for _ in range(5):
            (x + 1).sin()  # saves the sum, which goes with the graph: the next one may be given its memory

    assert saved_bytes(forward, [x]) == 5 * 4000
