"""Draws the embedded subset of Fashion-MNIST from the full data and writes it with its licence notice.

    python scripts/make_fashion_subset.py [FOLDER]

The same data give the same bytes (with the same zlib).
"""

import argparse
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchdcls_train.data.fashion_mnist import DEBIAN_FOLDER, EMBEDDED_FILE, read_fashion_mnist
from torchdcls_train.data.image_set import ImageSet

TRAIN_IMAGES_PER_CLASS = 600
TEST_IMAGES_PER_CLASS = 100
SEED = 2017
OUTPUT_FOLDER = Path(__file__).parents[1] / "src" / "torchdcls_train" / "data" / "embedded"
LICENSE_FILE = "LICENSE-fashion-mnist.txt"

Bytes = NDArray[np.uint8]

LICENSE_TEXT = f"""\
The file {EMBEDDED_FILE} beside this notice is a part of Fashion-MNIST
(https://github.com/zalandoresearch/fashion-mnist): {TRAIN_IMAGES_PER_CLASS} images of each of the ten classes from its
training files and {TEST_IMAGES_PER_CLASS} of each from its test files, drawn at random with a fixed seed by
scripts/make_fashion_subset.py, unchanged and in their original order.

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def make_subset(folder: Path) -> dict[str, Bytes]:
    """The subset's arrays: images (N, 28, 28) and labels (N,) for training and for test.

    Args:
        folder: The full data as gzipped or plain idx files.

    Raises:
        ValueError: The files are missing or broken, or hold too few images of a class.
    """
    train, test = read_fashion_mnist(folder)
    # Not default_rng: only RandomState promises the same numbers in every version of numpy.
    random = np.random.RandomState(SEED)
    return {
        **_draw("train", train, TRAIN_IMAGES_PER_CLASS, random),
        **_draw("test", test, TEST_IMAGES_PER_CLASS, random),
    }


def write_npz(path: Path, arrays: dict[str, Bytes]) -> None:
    """Writes what `numpy.load` reads as `numpy.savez_compressed`'s, with a fixed date on every entry."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as stream:
                np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)


def _draw(split: str, images: ImageSet, per_class: int, random: np.random.RandomState) -> dict[str, Bytes]:
    labels = images.labels.numpy()
    chosen = []
    for label in range(10):
        candidates = np.flatnonzero(labels == label)
        if len(candidates) < per_class:
            raise ValueError(f"{split}: expected at least {per_class} images of class {label}, got {len(candidates)}")
        chosen.append(random.permutation(candidates)[:per_class])
    rows = np.sort(np.concatenate(chosen))
    return {f"{split}_images": images.images[:, 0].numpy()[rows], f"{split}_labels": labels[rows].astype(np.uint8)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the embedded subset of Fashion-MNIST.")
    parser.add_argument("folder", nargs="?", type=Path, default=DEBIAN_FOLDER, help="full data (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUTPUT_FOLDER, help="where to write (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        arrays = make_subset(arguments.folder)
    except ValueError as error:
        parser.error(str(error))
    write_npz(arguments.out / EMBEDDED_FILE, arrays)
    (arguments.out / LICENSE_FILE).write_text(LICENSE_TEXT, encoding="utf-8")
    for name, array in arrays.items():
        print(f"{name}: {array.shape}")
    print(f"{arguments.out / EMBEDDED_FILE}: {(arguments.out / EMBEDDED_FILE).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
