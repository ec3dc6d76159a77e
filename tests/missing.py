"""Programs that run as if packages were not installed."""

import subprocess
import sys
from collections.abc import Sequence

# All packages beside torch and what comes with it.
OPTIONAL = (
    *("timm", "torchvision", "numpy", "matplotlib", "rich", "safetensors", "jsonargparse", "yaml", "PIL"),
    *("triton", "DCLS", "hypothesis", "pytest", "tensorboard", "tqdm", "scipy", "webdataset", "datasets"),
    *("onnx", "onnxscript", "onnx_ir", "onnxruntime", "huggingface_hub", "pyarrow", "nir"),
)
_BLOCK = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(name + " is missing", name=name)

sys.meta_path.insert(0, Missing())
"""


def run_without(packages: Sequence[str], program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process of its own that finds none of these packages."""
    code = f"{_BLOCK.format(packages=tuple(packages))}\n{program}"
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
