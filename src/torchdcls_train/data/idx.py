"""Reader for idx files, the format of MNIST and its relatives, gzipped or plain.

torchvision reads only files that have the checksums of the originals; this reader takes files that were compressed
again (as in Linux distributions) and checks what the format itself can tell.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dims: int) -> Tensor:
    """The array of unsigned bytes in an idx file.

    Args:
        path: File, plain or gzipped (told by its content, not by its name).
        dims: Number of axes the array must have.

    Returns:
        The array, uint8, with the shape that the file's header gives.

    Raises:
        ValueError: The file cannot be read, is no idx file of unsigned bytes with `dims` axes, or is shorter or longer
            than its header says. The message names the file.
    """
    content = _read_bytes(path)
    header_size = 4 + 4 * dims
    magic = bytes([0, 0, _UNSIGNED_BYTE, dims])
    if content[:4] != magic or len(content) < header_size:
        raise ValueError(
            f"{path}: expected an idx file of unsigned bytes with {dims} axes (first bytes {magic.hex(' ')}), "
            f"got {bytes(content[:4]).hex(' ') or 'an empty file'}; fetch the file again"
        )
    shape = struct.unpack_from(f">{dims}I", content, 4)
    expected = header_size + math.prod(shape)
    if len(content) != expected:
        raise ValueError(
            f"{path}: expected {expected} bytes for an array of shape {shape}, got {len(content)}; fetch the file again"
        )
    # Not frombuffer with an offset: it refuses one at the end of the buffer, which is where an empty array begins.
    return torch.frombuffer(content, dtype=torch.uint8)[header_size:].reshape(shape)


def _read_bytes(path: Path) -> bytearray:
    try:
        content = path.read_bytes()
        if content[:2] == _GZIP_MAGIC:
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a readable idx file, plain or gzipped, got {error}") from None
    return bytearray(content)
