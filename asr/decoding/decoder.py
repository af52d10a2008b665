"""What every decoder is: emissions to words, a whole utterance at once or live through a session.

Emissions are natural-log probabilities, one float32 array (frames, tokens) for each head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from asr.text.results import Alternative, Word

Emissions = Mapping[str, np.ndarray]


class Decoder(Protocol):
    """What `Recognizer` asks of a decoder: whole utterances, and sessions for live ones."""

    def decode(self, emissions: Emissions) -> list[Word]:
        """Words of a whole utterance; times in seconds from its first frame."""

    def nbest(self, emissions: Emissions, n: int, firm: Sequence[str] = ()) -> list[Alternative]:
        """The likeliest sentences, at most `n`, the best first, whose words are those of `decode`; none in silence.

        `firm` words were shown as those with which the sentence begins: the best keeps them where it can.
        """

    def session(self, draft: bool = False) -> Session:
        """An empty session for one live utterance; a draft's text is soon replaced, so it may be searched less well."""


class Session(Protocol):
    def accept(self, emissions: Emissions) -> None:
        """Take committed frames."""

    def words(self, preview: Emissions | None) -> list[Word]:
        """The words so far, those of frames that may still change included."""

    def settled(self, end: int, preview: Emissions | None) -> list[Word]:
        """The words so far that end before frame `end`, judged with those frames, too, that may still change."""

    def finish(self) -> list[Word]:
        """The words once all frames are committed: those of `decode` on the whole. Nothing may follow."""


@dataclass(frozen=True)
class Clock:
    """From a word's tokens in frames to its times in seconds."""

    seconds_per_frame: float
    start_offset: float
    end_offset: float

    def times(self, first: int, last: int) -> tuple[float, float]:
        start = max(0.0, first * self.seconds_per_frame + self.start_offset)
        return start, max(start + 0.02, (last + 1) * self.seconds_per_frame + self.end_offset)


def concatenate(parts: Sequence[Emissions]) -> dict[str, np.ndarray]:
    return {head: np.concatenate([part[head] for part in parts]) for head in parts[0]}


def tail(emissions: Emissions, first: int) -> dict[str, np.ndarray]:
    return {head: values[first:] for head, values in emissions.items()}


def shift(words: Sequence[Word], seconds: float) -> list[Word]:
    """The same words, so many seconds later."""
    return [replace(word, start=word.start + seconds, end=word.end + seconds) for word in words]


def shift_all(sentences: Sequence[Alternative], seconds: float) -> list[Alternative]:
    """The same sentences, so many seconds later."""
    return [replace(each, words=tuple(shift(each.words, seconds))) for each in sentences]


def parted(words: Sequence[Word]) -> list[Word]:
    """The same words; where two overlap by the width of a frame, both meet in the middle."""
    edges = [(before.end + word.start) / 2 if word.start < before.end else None for before, word in pairwise(words)]
    return (
        [
            Word(w.text, w.start if left is None else left, w.end if right is None else right, w.confidence)
            for w, left, right in zip(words, [None, *edges], [*edges, None], strict=True)
        ]
        if words
        else []
    )
