"""Decodes image files to eight bits a channel, or says why not, before memory is spent on them."""

import re
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from torchdcls._checks import first_line

from ..settings import MAX_IMAGE_PIXELS

# Pillow has sixteen bits of these as integers of 32.
_UNSIGNED = ("PNG", "PPM")
_WAY_OUT = "scale them to 8 bits, or to 16 bits without a sign"


def decode(file: BinaryIO | Path, max_pixels: int = MAX_IMAGE_PIXELS, *, upright: bool = False) -> Image.Image:
    """The image of a file, of several the first, with one (grayscale) or three channels of eight bits.

    Other channels, transparency among them, are dropped. Of 16 bits the upper eight are kept, whatever the values are:
    65535 is white, and 12 bits in a file of 16 are nearly black (at most 15 of 255) unless they are scaled before.

    Args:
        file: Open, or its path.
        max_pixels: The most pixels that are decoded; the file's header says how many there are.
        upright: Turn it as a camera's note in the file asks.

    Raises:
        ValueError: It has more pixels, or numbers that have no agreed range: floating-point ones, signed ones, and
            those of 32 bits.
        Exception: Any other says that Pillow cannot read the file.
    """
    with _opened(file, max_pixels) as opened:
        if opened.mode == "F":
            raise ValueError(f"floating-point images have no agreed range; {_WAY_OUT}")
        if opened.mode == "I" and opened.format not in _UNSIGNED:
            raise ValueError(f"signed and 32-bit integers have no agreed range; {_WAY_OUT}")
        image = ImageOps.exif_transpose(opened) if upright else opened
        if image.mode.startswith("I"):
            # Pillow's own conversion would clip everything above 255 to white.
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")


def reason(error: Exception) -> str:
    """Why an image cannot be read, in one line."""
    # Pillow's own words name an object in memory, another one at each time.
    unknown = isinstance(error, UnidentifiedImageError)
    return "not an image that Pillow reads" if unknown else first_line(error)


def _opened(file: BinaryIO | Path, max_pixels: int) -> Image.Image:
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        # Above twice its own limit Pillow refuses to open an image, and later to crop it.
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(file)
    except Image.DecompressionBombError as error:
        raise _too_large(f"{int(re.findall('[0-9]+', str(error))[0]):,}", max_pixels) from None
    width, height = opened.size
    if width * height > max_pixels:
        opened.close()
        raise _too_large(f"{width * height:,} ({width:,} x {height:,})", max_pixels)
    return opened


def _too_large(pixels: str, max_pixels: int) -> ValueError:
    return ValueError(
        f"max_image_pixels: expected at most {max_pixels:,} pixels, got {pixels}; make the image smaller or raise the "
        "setting"
    )
