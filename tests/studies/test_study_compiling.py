"""Models compiled in pieces: the same functions, and one compilation for all methods."""

import pytest
import torch
from torch._dynamo.utils import counters

from studies.cells import make_cell
from studies.config import LAYERS, Layers
from studies.layers import build
from studies.training import compile_in_pieces_, many_shapes
from tests.studies.made_study import PLATFORM, toy
from torchdcls.optim import dcls_layers
from torchdcls_train.comparison import small as comparison


def built(model: str, method: Layers, seed: int) -> torch.nn.Module:
    config = toy(models=[model], methods=list(LAYERS), sweeps={"kernel_size": 5}, tuning={"seeds": [100]})
    cell = make_cell(config, PLATFORM, model=model, method=method, candidate=config.candidates(method)[0], seed=seed)
    return build(cell, 1, 10)[0]


@pytest.mark.parametrize("model", ["convnext", "convformer"])
def test_pieces_compute_the_model_and_are_compiled_once(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_DEPTHS", (2, 2, 2, 2))
    images = torch.randn(3, 1, 9, 9)
    graphs = []
    torch._dynamo.reset()
    with many_shapes():
        for seed, method in enumerate(LAYERS):
            wanted, compiled = built(model, method, seed), built(model, method, seed)
            compile_in_pieces_(compiled, backend="aot_eager")
            for one in (wanted, compiled):
                one(images).square().sum().backward()
            torch.testing.assert_close(compiled(images), wanted(images))
            for (name, one), other in zip(wanted.named_parameters(), compiled.parameters(), strict=True):
                if one.requires_grad:
                    assert one.grad is not None and other.grad is not None, name
                    torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)
            if method not in ("7x7", "dense", "dilated"):
                assert len(dcls_layers(compiled)) == len(dcls_layers(wanted))
            graphs.append(counters["stats"]["unique_graphs"])
    # What is left to the second method is a stem that is met again; after it nothing is compiled.
    assert graphs[0] > 4 and len(set(graphs[1:])) == 1, graphs
    torch._dynamo.reset()
