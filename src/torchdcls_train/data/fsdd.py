"""The Free Spoken Digit Dataset: from a tar file or a folder, or a download of its archive from GitHub.

Recordings are read where they are: nothing of an archive is unpacked.
"""

import io
import re
import tarfile
import wave
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.utils import download_url

from .downloads import downloaded
from .source_types import fingerprint

RATE = 8000
_COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
_URL = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{_COMMIT}.tar.gz"
_ARCHIVE = "recordings.tar.gz"
# digit_speaker_number.wav
_NAME = re.compile(r"([0-9])_([A-Za-z]+)_([0-9]+)\.wav")


@dataclass(frozen=True, eq=False)
class Recordings:
    """Spoken digits, in the order of digit, speaker and number.

    Each speaker has said each digit several times; `numbers` counts them from 0.
    """

    samples: list[Tensor]  # (samples,) float32 from -1 to 1, 8,000 a second
    digits: Tensor  # (recordings,) int64
    speakers: list[str]
    numbers: Tensor  # (recordings,) int64
    fingerprint: str

    def __len__(self) -> int:
        return len(self.samples)


def find_fsdd(data_dir: Path | None) -> Recordings:
    """The dataset from a tar file or a folder, else what was downloaded before, else a download.

    Args:
        data_dir: A tar file, compressed or not, or a folder; the recordings may lie at any depth in it. None for the
            user's cache.

    Raises:
        ValueError: The recordings are missing, broken, of another format, or cannot be fetched.

    Source:
        Free Spoken Digit Dataset, Zohar Jackson and others, CC BY-SA 4.0,
        https://github.com/Jakobovski/free-spoken-digit-dataset
    """
    if data_dir is None:
        folder = downloaded(
            "fsdd",
            lambda root: download_url(_URL, f"{root}/fsdd", _ARCHIVE),
            missing="the Free Spoken Digit Dataset",
            advice="pass its archive or a folder with its recordings as --data-dir",
        )
        return _read(folder / _ARCHIVE)
    return _read(data_dir.expanduser())


def _read(place: Path) -> Recordings:
    read: dict[tuple[int, str, int], np.ndarray] = {}
    for name, content in _contents(place):
        key = int(name[1]), name[2], int(name[3])
        if key in read:
            raise ValueError(f"data_dir: expected each recording once, got {name[0]} twice in '{place}'")
        read[key] = _samples(f"{name[0]} in '{place}'", content)
    if not read:
        raise ValueError(
            f"data_dir: expected recordings such as 7_jackson_32.wav in '{place}', got none; pass the archive of the "
            "Free Spoken Digit Dataset or a folder with its recordings"
        )
    keys = sorted(read)
    return Recordings(
        [torch.from_numpy(read[key].astype(np.float32) / 2**15) for key in keys],
        torch.tensor([digit for digit, _, _ in keys]),
        [speaker for _, speaker, _ in keys],
        torch.tensor([number for _, _, number in keys]),
        fingerprint(part for key in keys for part in (key, read[key].tobytes())),
    )


def _contents(place: Path) -> Iterator[tuple[re.Match[str], bytes]]:
    """Names and contents of all files of a folder or a tar file that are named as recordings are."""
    try:
        if place.is_dir():
            for path in sorted(place.rglob("*.wav")):
                if (name := _NAME.fullmatch(path.name)) is not None:
                    yield name, path.read_bytes()
            return
        with tarfile.open(place) as archive:
            for member in archive:
                name = _NAME.fullmatch(PurePosixPath(member.name).name)
                if name is not None and (file := archive.extractfile(member)) is not None:
                    yield name, file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ValueError(
            f"data_dir: expected a tar file or a folder with recordings, '{place}' cannot be read ({error})"
        ) from None


def _samples(name: str, content: bytes) -> np.ndarray:
    """Samples of a WAV file, (samples,) int16."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            form = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
            frames = file.getnframes()
            samples = np.frombuffer(file.readframes(frames), "<i2" if form[1] == 16 else "u1")
    except (wave.Error, EOFError, ValueError) as error:
        raise ValueError(
            f"data_dir: expected a WAV file, {name} cannot be read ({str(error) or 'cut short'})"
        ) from None
    if form != (1, 16, RATE):
        raise ValueError(
            f"data_dir: expected recordings of 1 channel, 16 bits, {RATE} samples a second, got {form[0]}, {form[1]} "
            f"and {form[2]} in {name}"
        )
    if len(samples) == 0 or len(samples) < frames:
        raise ValueError(f"data_dir: expected {frames or 'some'} samples, got {len(samples)} in {name}")
    return samples
