"""How fast recognition is on this computer: whole recordings, and live streams."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from asr.audio.reading import SAMPLE_RATE
from asr.inference.recognizer import Recognizer
from asr.model.latency import LatencyLike

BLOCK_SAMPLES = 2560  # 160 ms, that a live stream is given at a time


@dataclass(frozen=True)
class LiveSpeed:
    """Of one stream: its share of a core, and how many milliseconds a block of 160 ms took."""

    share: float
    p50_ms: float
    p95_ms: float
    max_ms: float


def offline(recognizer: Recognizer, samples: np.ndarray) -> float:
    """Real-time factor of samples at 16 kHz, recognized as one recording on all cores."""
    start = time.perf_counter()
    recognizer.transcribe(samples, sample_rate=SAMPLE_RATE)
    return (time.perf_counter() - start) / (len(samples) / SAMPLE_RATE)


def live(recognizer: Recognizer, samples: np.ndarray, latency: LatencyLike) -> LiveSpeed:
    """A stream that hears samples at 16 kHz as fast as it goes."""
    stream = recognizer.stream(latency=latency)
    spent: list[float] = []
    busy = time.process_time()
    for first in range(0, len(samples), BLOCK_SAMPLES):
        start = time.perf_counter()
        stream.accept(samples[first : first + BLOCK_SAMPLES])
        spent.append(1000 * (time.perf_counter() - start))
    busy = time.process_time() - busy
    p50, p95 = np.percentile(spent, [50, 95])
    return LiveSpeed(busy / (len(samples) / SAMPLE_RATE), float(p50), float(p95), max(spent))
