"""What recognition gives: words, live events, transcripts. One shape for the API, the command line and the writers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from operator import itemgetter
from typing import Any

PARAGRAPH_PAUSE_S = 2.0  # seconds of silence that part two paragraphs
PARAGRAPH_CHARS = 600  # after so many, a paragraph ends with the next segment


@dataclass(frozen=True, slots=True)
class Word:
    """One recognized word. `start` and `end` are seconds from the beginning of the source, `confidence` is 0–1.

    `text` is raw: lower case, no punctuation. `written` is what people read, with capitals and the mark that follows;
    a number in digits may stand for several raw words. None where nothing was formatted.
    """

    text: str
    start: float
    end: float
    confidence: float
    written: str | None = None

    @property
    def display(self) -> str:
        """As written, else raw."""
        return self.text if self.written is None else self.written

    def to_dict(self) -> dict[str, Any]:
        written = {} if self.written is None else {"text": self.written}
        return {
            "word": self.text,
            **written,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "confidence": round(self.confidence, 3),
        }


@dataclass(frozen=True, slots=True)
class Partial:
    """Text that may still change. `start` is where its utterance began, in seconds.

    No later partial changes the first `stable` words; the final corrects few of them.
    """

    words: tuple[Word, ...]
    start: float
    stable: int = 0

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "partial",
            "text": self.text,
            "start": round(self.start, 3),
            "stable": self.stable,
            "words": [word.to_dict() for word in self.words],
        }


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of several sentences that somebody may have said, raw. `confidence` is its share of the probability that all
    of them have, 0–1."""

    words: tuple[Word, ...]
    confidence: float

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "confidence": round(self.confidence, 3),
            "words": [word.to_dict() for word in self.words],
        }


@dataclass(frozen=True, slots=True)
class Final:
    """Text that will not change any more: one utterance of a stream, one segment of a file.

    `start` and `end` are those of its first and last word, in seconds. `punctuated` says whether it is written as
    sentences are. `alternatives` are the likeliest sentences, this one first, where several were asked for.
    """

    words: tuple[Word, ...]
    start: float
    end: float
    punctuated: bool = False
    alternatives: tuple[Alternative, ...] = ()

    @classmethod
    def of(cls, words: Sequence[Word], punctuated: bool = False, alternatives: Sequence[Alternative] = ()) -> Final:
        """The final of these words, their times in whole milliseconds; without any, it lies at 0."""
        timed = _in_milliseconds(words)
        others = tuple(replace(each, words=_in_milliseconds(each.words)) for each in alternatives)
        return cls(timed, timed[0].start if timed else 0.0, timed[-1].end if timed else 0.0, punctuated, others)

    @property
    def text(self) -> str:
        return " ".join(word.display for word in self.words)

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "final",
            "text": self.text,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "words": [word.to_dict() for word in self.words],
            **({"alternatives": [each.to_dict() for each in self.alternatives]} if self.alternatives else {}),
        }


@dataclass(frozen=True, slots=True)
class Transcript:
    """A whole recording: its segments in order, and its length in seconds."""

    segments: tuple[Final, ...]
    duration: float

    @property
    def text(self) -> str:
        """As a text file has it, without the last line's end."""
        paragraphs = Paragraphs()
        return "".join(paragraphs.before(segment) + segment.text for segment in self.segments)

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "duration": round(self.duration, 3),
            "segments": [segment.to_dict() for segment in self.segments],
        }


def _in_milliseconds(words: Sequence[Word]) -> tuple[Word, ...]:
    return tuple(replace(word, start=round(word.start, 3), end=round(word.end, 3)) for word in words)


def join_alternatives(segments: Sequence[Final], n: int) -> list[Alternative]:
    """At most `n` sentences of segments on end, the likeliest first: one alternative of each segment, in all
    combinations, which are as likely as the product of their confidences."""
    Chosen = tuple[float, tuple[Any, Alternative] | None]  # confidence, and the alternatives, linked from the last one
    found: list[Chosen] = [(1.0, None)]
    for segment in segments:
        options = segment.alternatives or (Alternative(segment.words, 1.0),)
        longer: list[Chosen] = [
            (confidence * option.confidence, (before, option)) for confidence, before in found for option in options
        ]
        found = nlargest(n, longer, key=itemgetter(0))
        found = [(confidence / found[0][0], chosen) for confidence, chosen in found]  # products of many become 0
    total = sum(confidence for confidence, _ in found)
    joined = []
    for confidence, chosen in found:
        parts = []
        while chosen:
            chosen, option = chosen
            parts.append(option.words)
        joined.append(Alternative(tuple(word for words in reversed(parts) for word in words), confidence / total))
    return joined


class Paragraphs:
    """What stands before each segment of a text: nothing before the first, a new line where segments are raw; sentences
    follow on, and a long pause, or much text, makes a paragraph."""

    def __init__(self) -> None:
        self._end: float | None = None  # of the segment before, in seconds
        self._chars = 0  # of the paragraph so far

    def before(self, segment: Final) -> str:
        """Segments come in order; each is asked for once."""
        end, self._end = self._end, segment.end
        if end is None:
            separator = ""
        elif not segment.punctuated:
            separator = "\n"
        else:
            parted = segment.start - end >= PARAGRAPH_PAUSE_S or self._chars >= PARAGRAPH_CHARS
            separator = "\n\n" if parted else " "
        self._chars = len(segment.text) + (self._chars if separator == " " else 0)
        return separator
