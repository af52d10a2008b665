"""Recognized words as sentences, as they come: live, final by final, or a recording's segments joined.

    sentences = Sentences(punctuator)
    sentences.write(words)          # the same words as written: "And so, my fellow Americans"

What was written never changes. So live, each final is written with what came before it; of a recording, words wait
until the tagger has seen what follows them, and a sentence may cross the places where the recording was cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from asr.text.labels import COMMA, MARK_OF, NONE, SENTENCE_ENDS
from asr.text.punctuator import Punctuator
from asr.text.results import Final, Word

CONTEXT = 40  # words before those to be written that the tagger sees
LOOK_AHEAD = 32  # words of a recording after them

SEGMENT_PAUSE_S = 0.8  # seconds without a word that part raw segments, as they part a stream's utterances
SENTENCE_PAUSE_S = 0.3  # seconds after a sentence that end a segment
LONG_PAUSE_S = 2.0  # seconds that end one in mid-sentence, too
SENTENCE_S = 5.0  # of a segment, after which it ends with the next sentence,
CLAUSE_S = 15.0  # with the next clause or pause,
LONGEST_S = 30.0  # anywhere


class Sentences:
    """Writes one recording's or one session's words, in order."""

    def __init__(self, punctuator: Punctuator) -> None:
        self._punctuator = punctuator
        self._context: list[Word] = []  # written, the newest of them
        self._waiting: list[Word] = []
        self._first = True  # the next word begins a sentence

    def write(self, words: Sequence[Word], look_ahead: int = 0, silence: float = math.nan) -> list[Word]:
        """These words, and those that wait, as written; the last `look_ahead` of them wait for more. So many seconds of
        `silence` at least follow the last one; NaN where nobody knows."""
        self._waiting += words
        settled = self._waiting[: max(0, len(self._waiting) - look_ahead)]
        if not settled:
            return []
        seen = [*self._context, *self._waiting]
        tags = self._punctuator.tag([word.text for word in seen], pauses(seen, silence))[len(self._context) :]
        written = []
        for word, tag in zip(settled, tags, strict=False):
            written.append(replace(word, written=self._punctuator.write(word.text, tag, self._first)))
            self._first = tag.mark in SENTENCE_ENDS
        self._waiting = self._waiting[len(settled) :]
        self._context = [*self._context, *settled][-CONTEXT:]
        return written


def pauses(words: Sequence[Word], last: float = math.nan) -> np.ndarray:
    """Seconds of silence after each word; after the last one, what is said of it."""
    gaps = [max(0.0, following.start - word.end) for word, following in pairwise(words)]
    return np.array([*gaps, last][: len(words)])


def segments(words: Sequence[Word], punctuated: bool) -> list[Final]:
    """Words on end as segments. Where a segment ends depends on its words and the one that follows, so the last
    segment may go on with further words, and the others stay."""
    cuts = [0]
    for place in range(1, len(words)):
        if _ends(words[place - 1], words[place], words[place - 1].end - words[cuts[-1]].start, punctuated):
            cuts.append(place)
    return [Final.of(words[first:stop], punctuated) for first, stop in pairwise([*cuts, len(words)]) if stop > first]


def _ends(word: Word, following: Word, seconds: float, punctuated: bool) -> bool:
    """Whether a segment that has lasted for some seconds ends between two words."""
    pause = following.start - word.end
    if not punctuated:
        return pause >= SEGMENT_PAUSE_S
    mark = MARK_OF.get(word.display[-1:], NONE)
    if mark in SENTENCE_ENDS:
        return pause >= SENTENCE_PAUSE_S or seconds >= SENTENCE_S
    late = seconds >= CLAUSE_S and (mark == COMMA or pause >= SEGMENT_PAUSE_S)
    return late or pause >= LONG_PAUSE_S or seconds >= LONGEST_S
