"""What becomes of every kind of image: its right values in eight bits, or the reason why there are none."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from torchdcls_train.data.decoding import decode
from torchdcls_train.data.in_memory import load_data
from torchdcls_train.data.source_types import read_rgb


def encoded(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def sixteen(values: Sequence[int], kind: str = "<u2") -> Image.Image:
    return Image.fromarray(np.array([values], kind))


def tiff(values: Sequence[int], bits: int, sample_format: int, order: str = "<") -> io.BytesIO:
    """A greyscale TIFF of one row, which Pillow cannot write in every format that it reads."""
    kind = f"{order}{'u' if sample_format == 1 else 'i'}{bits // 8}"
    pixels = np.array(values, kind).tobytes()
    tags = [(256, len(values)), (257, 1), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1)]
    tags += [(279, len(pixels)), (339, sample_format)]
    file = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(pixels)) + pixels
    file += struct.pack(f"{order}H", len(tags))
    for tag, value in tags:
        file += struct.pack(f"{order}HHII", tag, 4, 1, value)
    return io.BytesIO(file + bytes(4))


def bomb(width: int, height: int) -> io.BytesIO:
    """A PNG of a few bytes that says of itself that it is large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


COLOR = (200, 100, 50)
IN_RGB = {
    "1": (encoded(Image.new("1", (4, 5), 1), "png"), (255, 255, 255)),
    "L": (encoded(Image.new("L", (4, 5), 77), "png"), (77, 77, 77)),
    "LA": (encoded(Image.new("LA", (4, 5), (77, 0)), "png"), (77, 77, 77)),
    "RGBA": (encoded(Image.new("RGBA", (4, 5), (*COLOR, 0)), "png"), COLOR),
    "P": (encoded(Image.new("RGB", (4, 5), COLOR).quantize(4), "png"), COLOR),
    "P, transparent": (encoded(Image.new("RGB", (4, 5), COLOR).quantize(4), "png", transparency=0), COLOR),
    "CMYK": (encoded(Image.new("CMYK", (4, 5), (55, 155, 205, 0)), "tiff"), COLOR),
    "several": (
        encoded(Image.new("RGB", (4, 5), COLOR), "tiff", save_all=True, append_images=[Image.new("RGB", (4, 5))]),
        COLOR,
    ),
}


@pytest.mark.parametrize("mode", IN_RGB)
def test_every_kind_of_image_becomes_rgb(mode: str) -> None:
    file, color = IN_RGB[mode]
    read = read_rgb(file)
    assert (read.mode, read.size, read.getpixel((2, 2))) == ("RGB", (4, 5), color)


# The last is 12 bits' largest.
SIXTEEN = [0, 255, 256, 0x6421, 65535, 4095]
UPPER = [0, 0, 1, 0x64, 255, 15]


@pytest.mark.parametrize(
    "file",
    [
        encoded(sixteen(SIXTEEN), "png"),
        encoded(sixteen(SIXTEEN), "tiff"),
        encoded(sixteen(SIXTEEN), "ppm"),
        tiff(SIXTEEN, 16, 1),
        tiff(SIXTEEN, 16, 1, ">"),
    ],
    ids=["png", "tiff", "ppm", "little", "big"],
)
@pytest.mark.parametrize("upright", [False, True])
def test_of_sixteen_bits_the_upper_eight_are_kept(file: io.BytesIO, upright: bool) -> None:
    file.seek(0)
    image = decode(file, upright=upright)
    assert image.mode == "L"
    assert np.asarray(image).tolist() == [UPPER]


SLICE = [-1000, -500, 0, 40]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (tiff(SLICE, 16, 2), r"^signed and 32-bit integers have no agreed range; scale them to 8 bits"),
        (tiff(SLICE, 16, 2, ">"), r"^signed and 32-bit integers"),
        # A slice of a series whose values happen to be large enough is no other image than its neighbors.
        (tiff([0, 500, 1000], 16, 2), r"^signed and 32-bit integers"),
        (tiff(SLICE, 32, 2), r"^signed and 32-bit integers"),
        (tiff([0, 70000], 32, 1), r"^signed and 32-bit integers"),
        (encoded(Image.fromarray(np.array([SLICE], np.int32)), "tiff"), r"^signed and 32-bit integers"),
        (encoded(Image.fromarray(np.array([[0.5]], np.float32)), "tiff"), r"^floating-point images have no .* scale"),
    ],
)
@pytest.mark.parametrize("upright", [False, True])
def test_numbers_without_an_agreed_range_are_refused(file: io.BytesIO, reason: str, upright: bool) -> None:
    file.seek(0)
    with pytest.raises(ValueError, match=reason):
        decode(file, upright=upright)


def test_a_folder_of_slices_is_refused_with_the_reason(tmp_path: Path) -> None:
    for number, folder in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.tif").write_bytes(tiff([number, *SLICE], 16, 2).getvalue())
    with pytest.raises(ValueError, match=r"2 files of which none .*, first 'x.tif' \(signed and 32-bit .*; scale them"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("width", "height", "came"),
    [(15_000, 10_000, r"150,000,000 \(15,000 x 10,000\)"), (40_000, 50_000, "2,000,000,000")],
)
@pytest.mark.filterwarnings("error")
def test_a_decompression_bomb_is_refused_by_its_header(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int, came: str
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(
        ValueError, match=rf"^max_image_pixels: expected at most 89,478,485 pixels, got {came}; make .* or raise the"
    ):
        decode(bomb(width, height))


@pytest.mark.filterwarnings("error")
def test_the_limit_can_be_above_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    file = encoded(Image.new("L", (10, 10), 7), "png")
    image = decode(file, 100)
    assert image.size == image.crop((0, 0, 10, 10)).size == (10, 10)
    with pytest.raises(ValueError, match=r"^max_image_pixels: expected at most 99 pixels, got 100 \(10 x 10\)"):
        decode(file, 99)


def test_a_folder_leaves_out_images_with_too_many_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("train/a", "train/b", "test/a"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("L", (10, 10), 7).save(tmp_path / folder / "x.png")
    Image.new("L", (10, 11)).save(tmp_path / "train/a/y.png")
    data = load_data(tmp_path, image_size=8, max_image_pixels=100)
    assert (len(data.train), data.skipped) == (2, 1)
    assert "'train/a/y.png' (max_image_pixels: expected at most 100 pixels, got 110" in capsys.readouterr().err
