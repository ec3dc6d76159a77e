"""What a comparison's pictures say of themselves, and where its elements came from."""

import pytest
import torch
from torch import nn

from tests.torchdcls_train.comparison.made_results import ORIGIN
from torchdcls import Dcls2d
from torchdcls_train.comparison.config import CompareConfig
from torchdcls_train.comparison.images.pictures import accuracy_figure, stage_views
from torchdcls_train.comparison.images.result import ImagesData, ImagesEpoch, ImagesResult, ImagesRun


def result(quick: bool) -> ImagesResult:
    epochs = [ImagesEpoch(number, 1.0, 1.0, accuracy, 1.0, 1.0) for number, accuracy in ((1, 50.0), (2, 60.0))]
    return ImagesResult(
        **{**ORIGIN, "machine": None},  # type: ignore[arg-type]
        device="cpu",
        config=CompareConfig(model="convnext", epochs=2, seeds=1, quick=quick),
        data=ImagesData("fruit", 2000, 1000, 28, 1, ["a", "b"], 0),
        runs=[ImagesRun("7x7", 0, 100, None, epochs)],
    )


@pytest.mark.parametrize("quick", [False, True])
def test_accuracy_says_what_it_is_worth(quick: bool) -> None:
    (axes,) = accuracy_figure(result(quick=quick)).axes
    of, *notice = axes.get_title().splitlines()
    assert of == "2,000 training images, 1,000 test images, 2 epochs, 1 seed"
    assert notice == (
        ["A quick run: it only shows that everything works, and its accuracies mean nothing."] if quick else []
    )
    assert axes.get_legend().get_title().get_text() == "one seed each"


def test_views_know_where_elements_came_from() -> None:
    model = nn.Sequential(Dcls2d(4, 4, 3, padding=4, groups=4, dilated_kernel_size=9))
    before = stage_views(model)
    with torch.no_grad():
        model[0].position.add_(1)
    (view,) = stage_views(model, before=before)
    assert view.position is not None and view.start is not None
    torch.testing.assert_close(view.position, view.start + 1)
