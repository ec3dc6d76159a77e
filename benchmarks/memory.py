"""How much memory a computation keeps for its backward pass."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def saved_bytes(forward: Callable[[], object], parameters: Iterable[Tensor]) -> int:
    """Bytes that `forward` saves for backward, each storage counted once and whole.

    Args:
        forward: Runs a forward pass with gradients on.
        parameters: Tensors that exist whether or not `forward` runs; their storages do not count.

    Returns:
        The sum of the sizes of the distinct storages saved.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in parameters}
    # Holds what was saved until the count is over: a freed address could be given out again.
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor.detach()  # a result that its own node saves would hold itself

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for address, storage in storages.items() if address not in known)
