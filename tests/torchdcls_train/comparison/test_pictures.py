"""What a comparison's pictures say of themselves, and where its elements came from."""

from typing import Any

import pytest
import torch
from torch import nn

from torchdcls import Dcls2d
from torchdcls_train.comparison.images.pictures import accuracy_figure, stage_views


def result(**config: Any) -> dict[str, Any]:
    return {
        "config": {"model": "convnext", "epochs": 2, "seeds": 1, "quick": False, **config},
        "data": {"name": "fruit", "train_images": 2000, "test_images": 1000},
        "status": "finished",
        "runs": [{"method": "7x7", "seed": 0, "epochs": [{"test_accuracy": 50.0}, {"test_accuracy": 60.0}]}],
    }


@pytest.mark.parametrize("quick", [False, True])
def test_accuracy_says_what_it_is_worth(quick: bool) -> None:
    (axes,) = accuracy_figure(result(quick=quick)).axes
    of, *notice = axes.get_title().splitlines()
    assert of == "2,000 training images, 1,000 test images, 2 epochs, 1 seed"
    assert notice == (["A quick run: that it runs is all it shows; its accuracies mean nothing."] if quick else [])
    assert axes.get_legend().get_title().get_text() == "one seed each"


def test_views_know_where_elements_came_from() -> None:
    model = nn.Sequential(Dcls2d(4, 4, 3, padding=4, groups=4, dilated_kernel_size=9))
    before = stage_views(model)
    with torch.no_grad():
        model[0].position.add_(1)
    (view,) = stage_views(model, before=before)
    assert view.position is not None and view.start is not None
    torch.testing.assert_close(view.position, view.start + 1)
