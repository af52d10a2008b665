"""MP4 through a pipe: the audio that a file gives, wherever its index is; a temporary file only where it is last."""

from __future__ import annotations

import errno
import io
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest

from asr.audio import mp4
from asr.audio.reading import read_blocks
from asr.errors import AudioError
from tests.conftest import CLIPS


class Pipe(io.RawIOBase):
    """Bytes that cannot seek, a few at a time."""

    name = "pipe"

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self.file.readinto(memoryview(buffer)[:5])


def encoded(container: str, codec: str, **options: str) -> bytes:
    """Real speech in this container."""
    with tempfile.NamedTemporaryFile() as out:
        with (
            av.open(str(CLIPS / "kathleen-0.flac")) as source,
            av.open(out.name, "w", format=container, options=options) as to,
        ):
            stream = to.add_stream(codec, rate=16_000, layout="mono")
            for frame in source.decode(audio=0):
                to.mux(stream.encode(frame))
            to.mux(stream.encode(None))
        return Path(out.name).read_bytes()


def order(data: bytes) -> list[str]:
    """The types of the boxes."""
    kinds, at = [], 0
    while at < len(data):
        kinds.append(data[at + 4 : at + 8].decode("latin-1"))
        at += int.from_bytes(data[at : at + 4], "big")
    return kinds


def read(source) -> np.ndarray:
    return np.concatenate(list(read_blocks(source)))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Temporary files that were made."""
    files, make = [], tempfile.TemporaryFile

    def note(**options: str):
        files.append(make(**options))
        return files[-1]

    monkeypatch.setattr(mp4.tempfile, "TemporaryFile", note)
    return files


@pytest.mark.parametrize(
    ("container", "options", "first", "last"),
    [
        ("mp4", {}, "mdat", True),
        ("mov", {}, "mdat", True),
        ("mp4", {"movflags": "faststart"}, "moov", False),
        ("mp4", {"movflags": "frag_keyframe+empty_moov"}, "moov", False),
    ],
)
def test_it_sounds_as_from_a_file(kept: list, container: str, options: dict, first: str, last: bool) -> None:
    data = encoded(container, "aac", **options)
    assert next(kind for kind in order(data) if kind in ("mdat", "moov")) == first
    np.testing.assert_array_equal(read(Pipe(data)), read(io.BytesIO(data)))
    assert len(kept) == last and all(file.closed for file in kept)


@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("matroska", "flac"), ("mp3", "libmp3lame")])
def test_others_pass_through(kept: list, container: str, codec: str) -> None:
    data = encoded(container, codec)
    assert len(read(Pipe(data))) == pytest.approx(len(read(io.BytesIO(data))), abs=1600) and kept == []


@pytest.mark.parametrize(
    "data",
    [b"", b"abc", b"\0\0\0\x18ftyp", b"\0\0\0\x02free" + bytes(30), b"\xff\xff\xff\xfffree" + bytes(30)],
)
def test_what_is_cut_short_is_named(data: bytes) -> None:
    with pytest.raises(AudioError, match=r"pipe: is (empty|not audio)"):
        read(Pipe(data))


def test_many_boxes_are_not_followed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4, "MAX_HEAD_BYTES", 100)
    pipe = Pipe(b"\0\0\0\x08free" * 1000)
    with mp4.with_index_in_reach(pipe) as file:
        assert pipe.file.tell() == 104 and file.read(4) == b"\0\0\0\x08"


def test_no_room_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mp4.shutil, "copyfileobj", full)
    with pytest.raises(
        AudioError, match=r"pipe: has its index at the end .* no space left on device; pass it as a fil"
    ):
        read(Pipe(encoded("mp4", "aac")))
