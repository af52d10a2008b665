"""How well words are written as sentences: precision, recall and F1 of each mark and of capitals.

A mark is right where the same one stands after the same word; a capital where the word is written in the same case.
Semicolons and quotation marks are not restored, so capitals are not judged where these decide about them: at a small
letter after what counts as a sentence's end, and at a capital that begins a quotation in mid-sentence.
Recognized words are aligned with the reference first (`aligned`). Marks are judged at all of them, capitals at those
that were recognized right: how a wrong word should be written, nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import jiwer
import numpy as np

from asr.text.labels import CAPITAL, COMMA, IGNORE, LOWER, NONE, PERIOD, QUESTION, SENTENCE_ENDS, Labelled, case_of
from asr.text.punctuator import Punctuator

NAMES = {PERIOD: "period", COMMA: "comma", QUESTION: "question mark"}
CAPITALS = "capital"
KINDS = (*NAMES.values(), CAPITALS)


@dataclass
class Counts:
    """Of one kind: in the reference, found, and found where the reference has it."""

    reference: int = 0
    found: int = 0
    right: int = 0

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.reference if self.reference else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.right / (self.reference + self.found) if self.reference + self.found else 0.0


@dataclass
class Scores:
    """Of any number of texts; all are added up before anything is divided."""

    words: int = 0
    kinds: dict[str, Counts] = field(default_factory=lambda: {kind: Counts() for kind in KINDS})

    def add(
        self, punctuator: Punctuator, reference: Labelled, pauses: Sequence[float] | np.ndarray | None = None
    ) -> None:
        """Judge what the tagger makes of a text's words; `pauses` as `Punctuator.tag` takes them."""
        first = begins = True  # a sentence, as written; in the reference
        self.words += len(reference.words)
        tags = punctuator.tag(reference.words, pauses)
        for word, mark, case, form, tag in zip(*reference, tags, strict=True):
            if mark != IGNORE:
                for kind, name in NAMES.items():
                    self._count(name, mark == kind, tag.mark == kind, mark == tag.mark)
            written = punctuator.write(word, tag._replace(mark=NONE), first).rstrip(".")
            first = tag.mark in SENTENCE_ENDS
            expected, found = case_of(form), case_of(written)
            if form and (case != IGNORE or expected == (CAPITAL if begins else LOWER)):
                self._count(CAPITALS, expected != LOWER, found != LOWER, expected == found)
            begins = mark in SENTENCE_ENDS

    def include(self, other: Scores) -> None:
        """Those of other texts as well."""
        self.words += other.words
        for name, counts in other.kinds.items():
            own = self.kinds[name]
            self.kinds[name] = Counts(
                own.reference + counts.reference, own.found + counts.found, own.right + counts.right
            )

    def _count(self, name: str, reference: bool, found: bool, same: bool) -> None:
        counts = self.kinds[name]
        counts.reference += reference
        counts.found += found
        counts.right += reference and found and same


def aligned(reference: Labelled, words: Sequence[str]) -> Labelled:
    """The labels of a reference, at recognized words: the mark of a word that was taken for another stays, that of one
    that was not heard goes to the word before it. A word that was recognized wrong has no written form."""
    found = Labelled(list(words), [NONE] * len(words), [LOWER] * len(words), [""] * len(words))
    if not words or not reference.words:
        return found
    for chunk in jiwer.process_words(" ".join(reference.words), " ".join(words)).alignments[0]:
        for at in range(chunk.ref_start_idx, chunk.ref_end_idx):
            place = chunk.hyp_start_idx + at - chunk.ref_start_idx
            mark = reference.marks[at]
            if chunk.type in ("equal", "substitute"):
                found.marks[place], found.cases[place] = mark, reference.cases[at]
                found.forms[place] = reference.forms[at] if chunk.type == "equal" else ""
            elif chunk.hyp_start_idx and mark != NONE and found.marks[chunk.hyp_start_idx - 1] in (NONE, COMMA):
                found.marks[chunk.hyp_start_idx - 1] = mark
    return found
