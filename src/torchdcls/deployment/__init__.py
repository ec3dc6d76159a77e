"""Models leave training: as ONNX, as programs of torch.export, and as weights that say which model they are of."""

from .agreement import Check
from .configuration import Configuration
from .errors import ExportError
from .export import check_path, export
from .report import ExportReport
from .weights import load

__all__ = ["Check", "Configuration", "ExportError", "ExportReport", "check_path", "export", "load"]
