"""Cuts a long recording where it is quietest, so that full context can run over one segment after another.

There is no threshold to tune: the next cut goes into the quietest window of `PAUSE_S` between `MIN_SEGMENT_S` and
`MAX_SEGMENT_S` after the last one. Every sample belongs to exactly one segment.
"""

from __future__ import annotations

import numpy as np

MIN_SEGMENT_S = 8.0
MAX_SEGMENT_S = 20.0
PAUSE_S = 0.4
POWER_FLOOR = 1e-10  # mean square of a 16-bit recording's digital silence


class Segmenter:
    """`push` samples with the mel frames they made, take complete segments of mel frames; `flush` gives the rest."""

    def __init__(self, hop: int, sample_rate: int) -> None:
        self.hop = hop
        rate = sample_rate / hop
        self.shortest, self.longest, self.pause = (round(s * rate) for s in (MIN_SEGMENT_S, MAX_SEGMENT_S, PAUSE_S))
        self.samples = np.zeros(0, dtype=np.float32)  # those that fill no hop yet
        self.levels = np.zeros(0)  # dB of each mel frame of the buffer
        self.mel: list[np.ndarray] = []
        self.frames = 0  # in self.mel

    def push(self, samples: np.ndarray, mel: np.ndarray) -> list[np.ndarray]:
        self.samples = np.concatenate([self.samples, samples])
        whole = len(self.samples) // self.hop * self.hop
        power = np.square(self.samples[:whole].reshape(-1, self.hop)).mean(axis=1)
        self.levels = np.concatenate([self.levels, 10 * np.log10(power + POWER_FLOOR)])
        self.samples = self.samples[whole:]
        self.mel.append(mel)
        self.frames += len(mel)
        segments = []
        while self.frames >= self.longest:
            buffer = np.concatenate(self.mel)
            cut = self._quietest()
            segments.append(buffer[:cut].copy())  # a view would keep the whole buffer as long as the segment lives
            self.mel = [buffer[cut:].copy()]
            self.frames -= cut
            self.levels = self.levels[cut:]
        return segments

    def flush(self) -> list[np.ndarray]:
        rest = np.concatenate(self.mel) if self.frames else None
        self.mel, self.frames = [], 0
        return [] if rest is None else [rest]

    def _quietest(self) -> int:
        window = np.convolve(self.levels[self.shortest : self.longest], np.ones(self.pause), mode="valid")
        return self.shortest + int(np.argmin(window)) + self.pause // 2
