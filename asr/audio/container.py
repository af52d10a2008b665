"""A file's container as FFmpeg (PyAV) opens it: its main audio track, its bytes, the length that its header states.

FFmpeg always reads through a Python file object: it then sees neither names nor addresses, knows formats by their
content alone, and a playlist sent as "audio" cannot make it open other files or reach the network.
"""

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import av
from av.container import InputContainer

from asr.audio.mp4 import with_index_in_reach
from asr.errors import AudioError

UNKNOWN_BYTES = 2**31 - 2**16  # WAV writers that cannot seek back (sox, arecord, ffmpeg) claim 0 or at least so much
# FFmpeg opens no other file or address. To know a file's tracks it decodes the first picture of each, up to full HD: a
# small file may hold a cover of 16 000² pixels, which takes seconds and gigabytes.
OPEN_OPTIONS = {"protocol_whitelist": "none", "max_pixels": str(1920 * 1088)}
# Containers whose header states the length; in the others FFmpeg guesses it from the bit rate.
STATED_LENGTH = {"w64", "aiff", "au", "caf", "flac", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}

File: TypeAlias = str | Path | BinaryIO


class Reader:
    """What FFmpeg sees of a file: no name, seeking only where it works, and a pipe's bytes as soon as they come."""

    def __init__(self, file: Any) -> None:
        self.head = b""  # what came first
        self.seekable = getattr(file, "seekable", lambda: False)
        self.seek, self.tell = getattr(file, "seek", None), getattr(file, "tell", None)
        if self.seekable():
            file.seek(0)
        self._read = file.read if self.seekable() else getattr(file, "read1", file.read)

    def read(self, size: int) -> bytes:
        data = self._read(size) or b""
        self.head = self.head or data
        return data

    def starts_endless_wav(self) -> bool:
        """Whether it is a WAV whose writer, sending it down a pipe, could not know how long it would get."""
        at = self.head.find(b"data")
        size = int.from_bytes(self.head[at + 4 : at + 8], "little")
        return at >= 0 and (size == 0 or size >= UNKNOWN_BYTES)


@contextmanager
def open_container(source: File) -> Iterator[tuple[InputContainer, av.AudioStream, Reader]]:
    """An open container, its main audio track and its bytes; every reason why there is none becomes an AudioError."""
    with _binary(source) as binary, with_index_in_reach(binary) as file:
        reader = Reader(file)
        try:
            container = av.open(reader, "r", metadata_errors="replace", options=OPEN_OPTIONS)
        except (av.FFmpegError, OSError, ValueError) as error:
            if not reader.head:
                raise AudioError("is empty (0 bytes); record or download it again.") from None
            raise AudioError("is not audio that can be read; pass an audio or video file.") from error
        with container:
            stream = container.streams.best("audio")
            if not isinstance(stream, av.AudioStream):
                raise AudioError("has no audio, only pictures or data; pass a file with an audio track.")
            if stream.codec_context is None:
                raise AudioError("has audio in a coding that is not supported; convert it to WAV or MP3.")
            yield container, stream, reader


def _binary(source: File) -> AbstractContextManager[Any]:
    if hasattr(source, "read") and not isinstance(source, io.TextIOBase):
        return nullcontext(source)
    if not isinstance(source, str | Path):
        kind = type(source).__name__
        raise AudioError(f"cannot read audio from {kind}; pass a path, a binary file (sys.stdin.buffer) or an array.")
    try:
        return open(source, "rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"cannot be opened, {reason.lower()}; check the path and its permissions.") from error


def stated_seconds(container: InputContainer, stream: av.AudioStream) -> float:
    """The length that decoding must reach unless the file was cut short; 0 where that cannot be known."""
    seconds = 0.0
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration and len(container.streams) == 1:
        seconds = container.duration / av.time_base
    # A whole MP3 may have no stated length, but only a stated one can be more than the file has room for.
    bit_rate = stream.codec_context.bit_rate or 0
    cut_mp3 = container.format.name == "mp3" and seconds * bit_rate / 8 > 1.02 * container.size > 0
    return seconds if container.format.name in STATED_LENGTH or cut_mp3 else 0
