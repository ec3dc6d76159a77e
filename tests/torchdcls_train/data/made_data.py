"""Small data sets in every layout that training reads. The image's shade of red tells which one it is."""

import io
import json
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path

from PIL import Image

CLASSES = ("apple", "pear")


def picture(number: int) -> Image.Image:
    """Red tells the number whatever the crop, green rises from left to right and blue from top to bottom."""
    slope = Image.linear_gradient("L")
    sides = [Image.new("L", (20, 16), number), slope.rotate(90).resize((20, 16)), slope.resize((20, 16))]
    return Image.merge("RGB", sides)


def png(number: int) -> bytes:
    file = io.BytesIO()
    picture(number).save(file, "png")
    return file.getvalue()


def content(number: int, broken: Collection[int]) -> bytes:
    return b"no image" if number in broken else png(number)


def write_folder(folder: Path, counts: dict[str, int], broken: Collection[int] = ()) -> Path:
    """Splits of so many images each, their classes in turn; numbers go on from split to split."""
    number = 0
    for split, count in counts.items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            path = folder / split / CLASSES[number % 2] / f"{number:03}.png"
            path.write_bytes(content(number, broken))
            number += 1
    return folder


def write_shard(path: Path, numbers: Sequence[int], broken: Collection[int] = (), json_labels: bool = False) -> None:
    """A shard with labels in .cls files, or in .json files under "kind", 7 being marked as having none."""
    with tarfile.open(path, "w") as shard:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))

        for number in numbers:
            add(f"{number:03}.png", content(number, broken))
            if json_labels:
                add(f"{number:03}.json", json.dumps({"kind": -1 if number == 7 else number % 2}).encode())
            else:
                add(f"{number:03}.cls", str(number % 2).encode())


def write_shards(
    folder: Path, splits: dict[str, tuple[int, int]], broken: Collection[int] = (), json_labels: bool = False
) -> Path:
    """Splits of so many shards of so many images each, and the file that describes them."""
    folder.mkdir(parents=True, exist_ok=True)
    number, info = 0, {}
    for split, (shards, size) in splits.items():
        names = [f"{split}-{index:04}.tar" for index in range(shards)]
        for name in names:
            write_shard(folder / name, range(number, number + size), broken, json_labels)
            number += size
        info[split] = {
            "name": split,
            "num_samples": shards * size,
            "filenames": names,
            "shard_lengths": [size] * shards,
        }
    (folder / "_info.json").write_text(json.dumps({"splits": info}))
    return folder


def write_parquet(folder: Path, splits: dict[str, tuple[int, int]], broken: Collection[int] = ()) -> Path:
    """Splits of so many files of so many images each."""
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(CLASSES)))
    number = 0
    for split, (files, size) in splits.items():
        for index in range(files):
            numbers = range(number, number + size)
            rows = {
                "image": [{"bytes": content(each, broken), "path": f"{each:03}.png"} for each in numbers],
                "label": [each % 2 for each in numbers],
            }
            table = datasets.Dataset.from_dict(rows, features=features)
            table.to_parquet(str(folder / f"{split}-{index:05}-of-{files:05}.parquet"))
            number += size
    return folder
