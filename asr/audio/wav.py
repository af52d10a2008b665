"""A recording that grows while it is made, and is a valid file all the time."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from asr.audio.reading import to_mono

HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


class WavWriter:
    """Mono 16-bit WAV that is valid after every write, even if the process is killed: each write updates the sizes.

    Sizes that no longer fit (4 GiB, 12 h at 48 kHz) say "unknown", which readers take as "to the end".
    """

    def __init__(self, path: Path, sample_rate: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rate, self._bytes = round(sample_rate), 0
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - open until close()
        self._write_header()

    def write(self, samples: np.ndarray) -> None:
        """Samples as for `to_mono`; what is beyond full scale is clipped."""
        pcm = np.round(np.clip(to_mono(samples), -1, 1) * 32767).astype("<i2").tobytes()
        self._file.seek(0, os.SEEK_END)
        self._file.write(pcm)
        self._bytes += len(pcm)
        self._write_header()

    def _write_header(self) -> None:
        data, whole = (min(self._bytes + extra, 2**32 - 1) for extra in (0, 36))
        self._file.seek(0)
        self._file.write(
            HEADER.pack(b"RIFF", whole, b"WAVE", b"fmt ", 16, 1, 1, self._rate, 2 * self._rate, 2, 16, b"data", data)
        )

    def close(self) -> None:
        self._file.close()
