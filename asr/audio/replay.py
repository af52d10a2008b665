"""A recording as if it were spoken now: the same blocks at the same pace as from a microphone.

    for block in Replay("talk.mp4", speed=1.0):      # float32, (n,), at replay.sample_rate
        ...

For demonstrations, tests and latency figures; `-` is standard input, so that any program can be the microphone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from asr.audio import reading
from asr.errors import AudioError

BLOCK_S = 0.05
RAW_BYTES = 2  # of a sample of raw PCM: signed 16 bit, little endian, mono


class Replay:
    """Args:
        source: a file that FFmpeg can decode, or "-" for standard input.
        speed: seconds of audio a second; 0 hands blocks on as they come, for a pipe that is itself live.
        raw_rate: Hz; the source is then raw 16-bit mono PCM at this rate, read without FFmpeg's look at its start.

    Raises AudioError while iterating.
    """

    overflows = 0
    latency = BLOCK_S

    def __init__(self, source: str, speed: float = 1.0, raw_rate: float | None = None) -> None:
        self.name = "standard input" if source == "-" else source
        self.source, self.speed, self.raw_rate = source, speed, raw_rate
        self.sample_rate = raw_rate or float(reading.SAMPLE_RATE)
        self.patient = speed != 1  # nobody needs the text at once: audio is held back rather than dropped
        self._stop = threading.Event()

    def __iter__(self) -> Iterator[np.ndarray]:
        start: float | None = None
        seconds = 0.0  # audio so far
        for block in self._blocks():
            length = len(block) / self.sample_rate
            if start is None:
                start = time.monotonic() - (length if self.source == "-" else 0)
            seconds += length
            if self.speed:  # a microphone, too, hands on a block once its last sample was spoken
                self._stop.wait(start + seconds / self.speed - time.monotonic())
            if self._stop.is_set():
                return
            yield block

    def close(self) -> None:
        """Ends the iteration at the next block; may be called again, and from another thread."""
        self._stop.set()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _blocks(self) -> Iterator[np.ndarray]:
        # Unbuffered: a thread that waits inside sys.stdin.buffer would hold its lock when the interpreter ends.
        file: Any = open(0, "rb", buffering=0, closefd=False) if self.source == "-" else self.source  # noqa: SIM115
        if not self.raw_rate:
            yield from reading.read_blocks(file, block_seconds=BLOCK_S)
        elif self.source == "-":
            yield from _raw_blocks(file, self.raw_rate)
        else:
            try:
                with open(file, "rb", buffering=0) as opened:
                    yield from _raw_blocks(opened, self.raw_rate)
            except OSError as error:
                reason = str(error.strerror).lower()
                raise AudioError(f"{self.name}: cannot be opened, {reason}; check the path.") from error


def _raw_blocks(file: BinaryIO, rate: float) -> Iterator[np.ndarray]:
    """Blocks of at most `BLOCK_S`, as soon as a pipe has them; half a sample waits for its other half."""
    rest = b""
    while data := file.read(RAW_BYTES * max(1, round(BLOCK_S * rate))):
        data = rest + data
        whole = len(data) - len(data) % RAW_BYTES
        rest = data[whole:]
        yield reading.to_mono(np.frombuffer(data[:whole], "<i2"))
