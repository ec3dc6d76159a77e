"""ONNX files: torch's exporter, ONNX's checker, and onnxruntime."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from .errors import ExportError, reason
from .program import quiet

# What torch's exporter writes, and what onnxscript can convert that to without loss.
OPSETS = range(18, 26)
# onnxruntime supports all of it since 2023. Newer opsets add nothing that convolutional networks need.
DEFAULT_OPSET = 20
METADATA = "torchdcls"
# What onnxruntime computes in on a CPU.
DTYPES = (torch.float32, torch.float16, torch.float64)


def write_onnx(program: ExportedProgram, path: Path, *, opset: int, free: dict[int, str], text: str) -> None:
    """Writes a program as ONNX, in one file unless its weights are too large for that.

    Args:
        program: From `trace`.
        path: The file. Torch puts weights of more than 1.5 GiB into NAME.data beside it, as Protobuf's limit is 2 GiB.
        opset: Version of the operators.
        free: Names of the free axes.
        text: The configuration, for the file's metadata.
    """
    import onnx

    with quiet():
        try:
            written: Any = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=opset,
                input_names=["input"],
                output_names=["output"] if len(program.graph_signature.user_outputs) == 1 else None,
                dynamic_shapes=(dict(free),),  # for the names: which axes are free stands in the program
                verbose=False,
            )
        except Exception as error:
            raise ExportError(f"model: torch's ONNX exporter cannot write it ({_cause(error)})") from None
        got = written.model.opset_imports[""]
        if got != opset:
            raise ExportError(
                f"opset: {opset} cannot be written for this model, whose operators onnxscript cannot convert to it; "
                f"leave it out, or take {got}"
            )
        written.model.metadata_props[METADATA] = text
        written.save(path)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"model: what torch's exporter wrote is no valid ONNX file ({reason(error)})") from None


def run_onnx(path: Path) -> Callable[[Tensor], list[Tensor]]:
    """A function that computes the outputs of an ONNX file, by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it raises is enough
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base of their own
        raise ExportError(
            f"opset: onnxruntime {onnxruntime.__version__} cannot run the file ({reason(error)}); take a lower opset, "
            "or a newer onnxruntime"
        ) from None
    return lambda given: [torch.from_numpy(output) for output in session.run(None, {"input": given.numpy()})]


def _cause(error: BaseException) -> str:
    """The first error of a chain, which says more than torch's pages about it, without colors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return re.sub(r"\x1b\[[0-9;]*m", "", reason(error))
