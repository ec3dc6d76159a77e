"""Programs of torch.export: a model traced with a free batch size, and free sizes where the model allows it."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.modules.module import register_module_forward_hook

from .agreement import outputs
from .errors import ExportError, reason

# The name of the configuration among the extra files.
EXTRA_FILE = "torchdcls.json"

# Operations in the formula of a size. Usual models have a few a layer; where one uses the size before it several times,
# as padding by remainders does, each makes it three times as long, and torch takes as much longer to reason about it.
_LONGEST_FORMULA = 100

_AXES = {0: (), 1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps torch's exporters from printing. What goes wrong is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        # A model that cannot be traced is printed whole.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _refuse_long_formulas(module: nn.Module, args: object, output: object) -> None:
    for size in output.shape if isinstance(output, Tensor) else ():
        if isinstance(size, torch.SymInt) and size.node.expr.count_ops() > _LONGEST_FORMULA:
            raise ExportError(
                f"model: torch.export would take too long, as the sizes after a {type(module).__name__} are formulas "
                f"of more than {_LONGEST_FORMULA} operations on the sizes of the input"
            )


def axis_names(dims: int) -> dict[int, str]:
    """Names of the axes that may be free: batch, and the axes in space."""
    return {0: "batch", **dict(enumerate(_AXES[dims - 2], start=2))}


def trace(model: nn.Module, example: Tensor, free: dict[int, str]) -> ExportedProgram:
    """Traces a model.

    Args:
        model: In evaluation mode.
        example: An input with more than one entry along the free axes, as torch.export treats sizes of 1 as fixed.
        free: Names of the axes that are to be free.

    Raises:
        ExportError: torch.export cannot trace it, would take too long, or fixes the size of one of these axes.
    """
    with quiet(), register_module_forward_hook(_refuse_long_formulas):
        try:
            # AUTO: free unless the model needs otherwise.
            program = torch.export.export(
                model, (example,), dynamic_shapes=(dict.fromkeys(free, Dim.AUTO),), strict=False
            )
        except ExportError:
            raise
        except Exception as error:
            raise ExportError(
                f"model: torch.export cannot trace it ({reason(error)}); it needs a forward pass without branches on "
                "values, see torch.export's own page"
            ) from None
    sizes = _input_shape(program)
    if isinstance(sizes[0], int):
        raise ExportError(
            f"model: expected one that takes any batch size, got one that torch.export fixes at {sizes[0]}; its "
            "forward pass uses the batch size as a fixed number"
        )
    if fixed := [name for axis, name in free.items() if isinstance(sizes[axis], int)]:
        raise ExportError(f"model: torch.export fixes the {' and '.join(fixed)} of its input at one value")
    return program


def least_sizes(program: ExportedProgram) -> tuple[int, ...]:
    """The smallest sizes in space that a program takes."""
    least = []
    for size in _input_shape(program)[2:]:
        bounds = program.range_constraints.get(size.node.expr) if isinstance(size, torch.SymInt) else None
        least.append(size if isinstance(size, int) else 1 if bounds is None else int(bounds.lower))
    return tuple(least)


def write_program(program: ExportedProgram, path: Path, text: str) -> None:
    """Writes a program with the configuration among its extra files; an ExportError says why torch.export cannot."""
    with quiet(), path.open("wb") as file:
        try:
            torch.export.save(program, file, extra_files={EXTRA_FILE: text})
        except OSError:
            raise
        except Exception as error:
            raise ExportError(f"model: torch.export cannot write it ({reason(error)})") from None


def read_program(path: Path) -> nn.Module:
    """The module of a file of torch.export."""
    with quiet(), path.open("rb") as file:
        return torch.export.load(file).module()


def run_program(module: nn.Module) -> Callable[[Tensor], list[Tensor]]:
    """A function that computes the outputs of a program's module."""
    return torch.no_grad()(lambda given: outputs(module(given)))


def _input_shape(program: ExportedProgram) -> tuple[Any, ...]:
    (name,) = program.graph_signature.user_inputs
    (node,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    return tuple(node.meta["val"].shape)
