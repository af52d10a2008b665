"""What recognition gives: words, live events, transcripts. One shape for the API, the command line and the writers."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """One recognized word. `start` and `end` are seconds from the beginning of the source, `confidence` is 0–1."""

    text: str
    start: float
    end: float
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "word": self.text,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "confidence": round(self.confidence, 3),
        }


@dataclass(frozen=True, slots=True)
class Partial:
    """Text that may still change. `start` is where its utterance began, in seconds."""

    words: tuple[Word, ...]
    start: float

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    def to_dict(self) -> dict[str, Any]:
        return {"type": "partial", "text": self.text, "start": round(self.start, 3),
                "words": [word.to_dict() for word in self.words]}


@dataclass(frozen=True, slots=True)
class Final:
    """Text that will not change any more: one utterance of a stream, one segment of a file.

    `start` and `end` are those of its first and last word, in seconds.
    """

    words: tuple[Word, ...]
    start: float
    end: float

    @classmethod
    def of(cls, words: Sequence[Word]) -> Final:
        """The final of these words; without any, it lies at 0."""
        return cls(tuple(words), words[0].start if words else 0.0, words[-1].end if words else 0.0)

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    def to_dict(self) -> dict[str, Any]:
        return {"type": "final", "text": self.text, "start": round(self.start, 3), "end": round(self.end, 3),
                "words": [word.to_dict() for word in self.words]}


@dataclass(frozen=True, slots=True)
class Transcript:
    """A whole recording: its segments in order, and its length in seconds."""

    segments: tuple[Final, ...]
    duration: float

    @property
    def text(self) -> str:
        return "\n".join(segment.text for segment in self.segments)

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "duration": round(self.duration, 3),
                "segments": [segment.to_dict() for segment in self.segments]}
