"""A few made recordings: each digit is a tone, each speaker says it a little higher."""

import tarfile
import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np

SPEAKERS = ("anna", "ben", "carl")


def write_wav(path: Path, samples: np.ndarray, *, rate: int = 8000, channels: int = 1) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(samples.dtype.itemsize)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def tone(frequency: float, seconds: float = 0.3, rate: int = 8000) -> np.ndarray:
    """int16, which begins and ends with silence of a quarter of it."""
    time = np.arange(int(seconds * rate)) / rate
    loud = (time > seconds / 4) & (time < 3 * seconds / 4)
    return (20000 * loud * np.sin(2 * np.pi * frequency * time)).astype("<i2")


def write_recordings(
    folder: Path,
    digits: Iterable[int] = range(2),
    speakers: Iterable[str] = SPEAKERS,
    numbers: Iterable[int] = range(8),
) -> Path:
    """A folder of recordings, below one that archives have too."""
    place = folder / "recordings"
    place.mkdir(parents=True)
    for digit in digits:
        for order, speaker in enumerate(speakers):
            for number in numbers:
                samples = tone(400 + 1200 * digit + 40 * order + 10 * number)
                write_wav(place / f"{digit}_{speaker}_{number}.wav", samples)
    (place / "README.txt").write_text("no recording")
    return folder


def write_archive(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, "free-spoken-digit-dataset-26eb9aa")
    return archive
