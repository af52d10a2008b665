"""Real audio through streams, and what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from asr.inference.stream import Event, Stream
from asr.text.results import Final

RATE = 16_000
BLOCK = 2560  # samples: 160 ms


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def play(stream: Stream, samples: np.ndarray, cuts: Iterable[int] | None = None) -> list[Event]:
    """All events of `samples` in 160 ms blocks, or in pieces that end at `cuts`."""
    events: list[Event] = []
    for block in np.split(samples, range(BLOCK, len(samples), BLOCK) if cuts is None else list(cuts)):
        events += stream.accept(block)
    return events + stream.finish()


def finals(events: Sequence[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


def texts(events: Sequence[Event]) -> list[str]:
    """Those of the finals."""
    return [event.text for event in finals(events)]


def timed_words(events: Sequence[Event]) -> list[list[tuple[str, float, float]]]:
    """Of each final, without confidences, which are those of each stream alone to rounding only."""
    return [[(word.text, word.start, word.end) for word in final.words] for final in finals(events)]
