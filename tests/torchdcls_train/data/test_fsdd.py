"""Spoken digits from a folder, an archive and a download; and what is no data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.torchdcls_train.data.made_recordings import tone, write_archive, write_recordings, write_wav
from torchdcls_train.data import fsdd
from torchdcls_train.data.fsdd import find_fsdd


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "data", numbers=(0, 10, 2))


def test_folder_and_archive_have_the_same_recordings_in_order(folder: Path, tmp_path: Path) -> None:
    recordings = find_fsdd(folder)
    assert len(recordings) == 2 * 3 * 3
    assert recordings.digits.tolist() == [0] * 9 + [1] * 9
    assert recordings.speakers[:9] == ["anna"] * 3 + ["ben"] * 3 + ["carl"] * 3
    assert recordings.numbers[:3].tolist() == [0, 2, 10]
    expected = tone(400 + 1200 + 40 + 100) / 2**15
    np.testing.assert_allclose(recordings.samples[14].numpy(), expected, rtol=0, atol=1e-7)
    again = find_fsdd(write_archive(folder, tmp_path / "a.tar.gz"))
    assert again.fingerprint == recordings.fingerprint and again.speakers == recordings.speakers
    (folder / "recordings" / "1_ben_10.wav").unlink()
    assert find_fsdd(folder).fingerprint != recordings.fingerprint


def test_download_happens_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls: list[str] = []

    def download(url: str, root: str, filename: str) -> None:
        calls.append(url)
        Path(root).mkdir()
        write_archive(folder, Path(root) / filename)

    monkeypatch.setattr(fsdd, "download_url", download)
    assert len(find_fsdd(None)) == len(find_fsdd(None)) == 18
    (url,) = calls
    assert url.startswith("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/26eb9aa")


def test_no_network_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refused(url: str, root: str, filename: str) -> None:
        raise OSError("no route")

    monkeypatch.setattr(fsdd, "download_url", refused)
    with pytest.raises(ValueError, match=r"data: the Free .* could not be downloaded to .*no route.*--data-dir"):
        find_fsdd(None)
    assert list((tmp_path / "cache" / "torchdcls").iterdir()) == []


def _other_rate(path: Path) -> None:
    write_wav(path, tone(500), rate=16000)


def _stereo(path: Path) -> None:
    write_wav(path, tone(500), channels=2)


def _bytes(path: Path) -> None:
    write_wav(path, tone(500).astype("u1"))


def _silent(path: Path) -> None:
    write_wav(path, tone(500)[:0])


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-22])


def _no_wav(path: Path) -> None:
    path.write_text("no sound at all")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_other_rate, r"8000 samples a second, got 1, 16 and 16000 in 0_anna_2.wav in "),
        (_stereo, r"of 1 channel, 16 bits, .* got 2, 16 and 8000 in 0_anna_2.wav"),
        (_bytes, r"got 1, 8 and 8000 in 0_anna_2.wav"),
        (_silent, r"expected some samples, got 0 in 0_anna_2.wav"),
        (_cut_short, r"expected 2400 samples, got 2389 in 0_anna_2.wav"),
        (_no_wav, r"expected a WAV file, 0_anna_2.wav in .* cannot be read \(.*not"),
        (_empty, r"expected a WAV file, 0_anna_2.wav in .* cannot be read \(cut short\)"),
    ],
)
def test_a_recording_that_cannot_be_used_is_named(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder / "recordings" / "0_anna_2.wav")
    with pytest.raises(ValueError, match=f"data_dir: .*{message}"):
        find_fsdd(folder)


def test_a_recording_that_is_there_twice(folder: Path) -> None:
    write_wav(folder / "0_anna_2.wav", tone(500))
    with pytest.raises(ValueError, match=r"data_dir: expected each recording once, got 0_anna_2\.wav twice in"):
        find_fsdd(folder)


def test_what_is_no_data_set(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"data_dir: expected recordings such as .* in .*empty', got none"):
        find_fsdd(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"data_dir: expected a tar file or a folder .*nowhere' cannot be read"):
        find_fsdd(tmp_path / "nowhere")
    (tmp_path / "words.tar").write_text("no archive")
    with pytest.raises(ValueError, match=r"data_dir: expected a tar file or a folder .*words.tar' cannot be read"):
        find_fsdd(tmp_path / "words.tar")
    whole = write_archive(folder, tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "half.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"data_dir: expected a tar file or a folder .*half.tar.gz' cannot be read"):
        find_fsdd(tmp_path / "half.tar.gz")
