"""Which words of a partial are worth showing: those that have stood still for a moment.

The newest words of a live hypothesis flicker. Each is held back until it has come twice more at the same place, or once
more where the recogniser is sure of it; words before a shown word are shown with it. (Compare local agreement of the
last n hypotheses, Liu et al. 2020, arXiv 2005.11185, which also hides what follows a word that has changed.)
"""
from __future__ import annotations

from collections.abc import Sequence

from asr.text.results import Word

REPEATS = 2  # times that a hypothesis must repeat a word
REPEATS_IF_SURE = 1
SURE = 0.8  # confidence
SAME_PLACE = 0.15  # seconds between the starts of a word and its repetition


class Stability:
    """One utterance's hypotheses, one after another, at a steady pace."""

    def __init__(self) -> None:
        self.repeats: list[tuple[Word, int]] = []  # the newest hypothesis, and how often each word was repeated

    def shown(self, hypothesis: Sequence[Word]) -> tuple[Word, ...]:
        """Takes a new hypothesis and returns the part of it that is worth showing."""
        before, self.repeats = self.repeats, []
        for word in hypothesis:
            counts = [count + 1 for other, count in before
                      if other.text == word.text and abs(other.start - word.start) < SAME_PLACE]
            self.repeats.append((word, max(counts, default=0)))
        steady = [i for i, (word, count) in enumerate(self.repeats, 1)
                  if count >= (REPEATS_IF_SURE if word.confidence > SURE else REPEATS)]
        return tuple(hypothesis[:steady[-1]]) if steady else ()
