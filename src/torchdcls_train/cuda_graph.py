"""An update of a model that a GPU repeats by itself."""

from collections.abc import Callable

import torch
from torch import Tensor

# Calls that are made as they come: programs are compiled and measured, and the optimizer's state is made.
PLAIN_CALLS = 2


class GraphedUpdate:
    """An update whose kernels are captured once as a CUDA graph and replayed.

    A small model's update is thousands of kernels of microseconds each, which Python launches more slowly than a GPU
    runs them. Every call is an update; none is made for the capture alone.

    Args:
        update: From images and labels, both on the GPU, to losses. It must not look at a number on the GPU.
        optimizer: What it calls, with `capturable=True`. Its groups may have another "lr" for every call.
    """

    def __init__(self, update: Callable[[Tensor, Tensor], Tensor], optimizer: torch.optim.Optimizer) -> None:
        self._update, self._optimizer = update, optimizer
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    @property
    def begins(self) -> bool:
        """Whether the last call was the first replay, and those after it take as long as a call takes."""
        return self._calls == PLAIN_CALLS + 1

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """One update.

        Args:
            images: Of the shape of all other calls; those of another shape are not replayed.
            labels: Likewise.

        Returns:
            The losses, to be read before the next call.
        """
        self._calls += 1
        if self._calls <= PLAIN_CALLS:
            return self._aside(images, labels)
        if self._graph is None:
            self._capture(images, labels)
        if images.shape != self._images.shape:
            return self._update(images, labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        for rate, group in zip(self._rates, self._optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        assert self._graph is not None
        self._graph.replay()
        return self._losses

    def _aside(self, images: Tensor, labels: Tensor) -> Tensor:
        # What is made before a capture belongs to another stream than the default one.
        aside = torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(aside):
            losses = self._update(images, labels)
        torch.cuda.current_stream(images.device).wait_stream(aside)
        return losses

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        groups = self._optimizer.param_groups
        self._images, self._labels = images.clone(), labels.clone()
        wanted = [group["lr"] for group in groups]
        self._rates = [torch.tensor(lr, device=images.device) for lr in wanted]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
        self._optimizer.zero_grad()  # gradients are then made in the graph's own memory
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._losses = self._update(self._images, self._labels)
        for group, lr in zip(groups, wanted, strict=True):
            group["lr"] = lr
