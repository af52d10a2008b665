"""What a training tells those who watch it: the command line, TensorBoard, tests."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from asr.training.data import Batch, TargetEncoder
from asr.training.state import TrainingState

RECENT_UPDATES = 50  # that the pace is a mean of


@dataclass(frozen=True)
class Pace:
    """Means over the last updates."""

    loss: float
    speech_rate: float  # seconds of speech, in all processes, a second
    waiting: float  # share of the time in which the next batch was not there yet


@dataclass(frozen=True)
class Step:
    """One update: losses a target token by name, the gradient's norm before clipping, and its process's batch."""

    losses: Mapping[str, float]
    norm: float
    batch: Batch
    pace: Pace


class Observer:
    """`train` calls these methods in every process; each does nothing unless a subclass says otherwise."""

    def start(self, state: TrainingState) -> None:
        """Before the first update."""

    def step(self, state: TrainingState, step: Step) -> None:
        """After each update."""

    def scores(self, state: TrainingState, errors: Mapping[str, float], batch: Batch) -> None:
        """After an evaluation: error rates on dev by name, and one of dev's batches."""

    def end(self, state: TrainingState, encoder: TargetEncoder) -> None:
        """At the end, whatever ended it."""


class Stopwatch:
    """Measures the pace: what passes between two updates beyond the work itself was spent waiting for the batch."""

    def __init__(self) -> None:
        # Of the last updates: loss, seconds of speech, seconds in all, seconds of waiting
        self.recent: deque[tuple[float, float, float, float]] = deque(maxlen=RECENT_UPDATES)
        self.restart()

    def restart(self) -> None:
        """Leave out what has passed since the last update."""
        self.last = time.perf_counter()

    def lap(self, loss: float, speech: float, working: float) -> Pace:
        """After an update on `speech` seconds that took `working` seconds."""
        now = time.perf_counter()
        passed, self.last = now - self.last, now
        self.recent.append((loss, speech, passed, max(0.0, passed - working)))
        losses, speeches, seconds, waited = (sum(each) for each in zip(*self.recent, strict=True))
        return Pace(losses / len(self.recent), speeches / seconds, waited / seconds)
