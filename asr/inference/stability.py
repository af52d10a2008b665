"""Which words a partial shows: those that have stood still for a moment.

The newest words of a live hypothesis flicker. Each is held back until it has come twice more at the same place, or once
more if its confidence is high; words before a shown word are shown with it. (Compare local agreement of the last n
hypotheses, Liu et al. 2020, arXiv 2005.11185, which also hides the words after one that has changed.)
"""

from __future__ import annotations

from collections.abc import Sequence

from asr.decoding.decoder import shift
from asr.text.results import Partial, Word

REPEATS = 2  # times that a hypothesis must repeat a word
REPEATS_IF_SURE = 1
SURE = 0.8  # confidence
SAME_PLACE_S = 0.15  # between the starts of a word and its repetition


class StablePartials:
    """The partials of one utterance, from its hypotheses, which come at a steady pace."""

    def __init__(self) -> None:
        self.words: tuple[Word, ...] = ()  # those of the newest hypothesis that are worth showing
        self._repeats: list[tuple[Word, int]] = []  # the newest hypothesis, and how often each word was repeated
        self._firm = 0  # of these, those that do not change any more
        self._shown = ("", 0)  # text of the newest partial, and how much of it is firm

    def update(self, hypothesis: Sequence[Word], firm: int = 0) -> None:
        """A hypothesis that begins with so many firm words."""
        before, self._repeats = self._repeats, []
        for word in hypothesis:
            counts = [
                count + 1
                for other, count in before
                if other.text == word.text and abs(other.start - word.start) < SAME_PLACE_S
            ]
            self._repeats.append((word, max(counts, default=0)))
        steady = [
            i
            for i, (word, count) in enumerate(self._repeats, 1)
            if count >= (REPEATS_IF_SURE if word.confidence > SURE else REPEATS)
        ]
        self.words, self._firm = tuple(hypothesis[: max([firm, *steady])]), firm

    def changed(self, start: float) -> list[Partial]:
        """A partial of the utterance that starts at `start` seconds, if its text or its firm words are new."""
        partial = Partial(tuple(shift(self.words, start)), start, self._firm)
        shown = partial.text, partial.stable
        if shown == self._shown:
            return []
        self._shown = shown
        return [partial]
