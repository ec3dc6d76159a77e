"""Whether autocast is on, and steps without it."""

from contextlib import AbstractContextManager, nullcontext

import torch

from .tracing import constant_when_compiled


@constant_when_compiled  # the compiler of torch 2.11 cannot trace it
def _available(device: str) -> bool:
    return torch.amp.is_autocast_available(device)


def autocast_disabled(device_type: str) -> AbstractContextManager[object]:
    """A context without autocast. It is entered only if autocast is on, as torch refuses devices without autocast."""
    return torch.autocast(device_type, enabled=False) if autocast_is_on(device_type) else nullcontext()


def autocast_is_on(device_type: str) -> bool:
    """Whether this kind of device has autocast, and it is on."""
    return _available(device_type) and torch.is_autocast_enabled(device_type)
