"""What an export can be asked for."""

from typing import Literal

Format = Literal["onnx", "pt2", "safetensors"]
DynamicSize = Literal["auto"] | bool
Positions = Literal["keep", "round"]
