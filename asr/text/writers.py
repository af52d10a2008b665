"""Transcripts as files: plain text, subtitles (SRT, WebVTT), TSV and JSON, written at once or while a session runs.

Each segment is laid out by itself, so that a live session's file and `render` of the same segments are the same text.
Subtitle limits follow the usual style guides (BBC, Netflix). WebVTT: https://www.w3.org/TR/webvtt1/. TSV is Whisper's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from itertools import accumulate
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

from asr.atomic import replacing
from asr.errors import RillError
from asr.text.labels import COMMA, MARK_OF, NONE, PERIOD, QUESTION, SENTENCE_ENDS
from asr.text.results import Final, Paragraphs, Transcript, Word

FORMATS = ("txt", "srt", "vtt", "tsv", "json")

LINE_CHARS = 42  # characters of a subtitle line; a cue has two lines at most
LINE_ENDS = {NONE: 0, COMMA: 8, PERIOD: 16, QUESTION: 16}  # characters longer that a line may be for such a mark
MAX_CUE_S = 7.0  # seconds a cue is shown at most
MIN_CUE_S = 1.0  # seconds a cue is shown at least, unless the next one comes earlier
PAUSE_S = 0.5  # seconds without a word that should end a cue


class Cue(NamedTuple):
    """One subtitle: lines shown together from `start` to `end`, in seconds."""

    start: float
    end: float
    lines: tuple[str, ...]


def cues(words: Sequence[Word]) -> list[Cue]:
    """One segment's words, in order of their starts, as subtitles that do not overlap.

    Of all ways to cut the words into cues within the limits, the cheapest (dynamic programming, as Knuth and Plass
    break paragraphs into lines, 1981): few cues, well filled, none shown too briefly; cut at the ends of sentences,
    then of clauses, then at pauses, no long pause inside a cue, and no sentence that begins behind another one and
    goes on in the next cue.
    """
    punctuated = all(word.written is not None for word in words)
    inside = 0.5 if punctuated else 3.0  # the cost of a pause inside a cue: marks say more than pauses
    pieces = [piece for word in words for piece in _pieces(word)]
    best: list[tuple[float, int]] = [(0.0, 0)]  # for the first `stop` pieces: cost, where their last cue begins
    for stop in range(1, len(pieces) + 1):
        options, pauses, torn = [], 0, False
        for first in range(stop - 1, -1, -1):
            text, start, end = pieces[first:stop], pieces[first].start, pieces[stop - 1].end
            if len(text) > 1:
                if not _wrap(text) or end - start > MAX_CUE_S:
                    break
                pauses += text[1].start - text[0].end >= PAUSE_S
            torn = torn or (_mark(text[0]) in SENTENCE_ENDS and _mark(text[-1]) not in SENTENCE_ENDS)
            cost = best[first][0] + 1 + (1 - _length(text) / (2 * LINE_CHARS)) ** 2 + inside * pauses + 2 * torn
            if stop < len(pieces):
                cost += _cut_cost(text[-1], pieces[stop].start - end, punctuated)
                cost += 2 * (pieces[stop].start - start < MIN_CUE_S)
            options.append((cost, first))
        best.append(min(options))

    found: list[Cue] = []
    stop = len(pieces)
    while stop:
        first = best[stop][1]
        start, end = pieces[first].start, pieces[stop - 1].end
        cue = Cue(start, min(max(end, start + MIN_CUE_S), start + MAX_CUE_S), _wrap(pieces[first:stop]))
        found.insert(0, _cut(cue, found[0]) if found else cue)  # the last cue was found first
        stop = first
    return found


def _cut_cost(word: Word, pause: float, punctuated: bool) -> float:
    """What it costs to end a cue after a word that so many seconds of silence follow."""
    silence = min(max(pause / PAUSE_S, 0.0), 1.0)
    if not punctuated:
        return 1 - silence
    mark = _mark(word)
    return 0.0 if mark in SENTENCE_ENDS else (0.6 if mark == COMMA else 2.0) - 0.5 * silence


def _mark(word: Word) -> int:
    return MARK_OF.get(word.display[-1:], NONE)


def _cut(cue: Cue, following: Cue) -> Cue:
    return cue._replace(end=min(cue.end, following.start))


def _pieces(word: Word) -> Iterator[Word]:
    """The word itself, or parts of a line's length that share its time by their characters."""
    shown = word.display
    size = len(shown)
    for at in range(0, size, LINE_CHARS):
        after = min(at + LINE_CHARS, size)
        start, end = (word.start + (word.end - word.start) * place / size for place in (at, after))
        yield Word(shown[at:after], start, end, word.confidence)


def _length(words: Sequence[Word]) -> int:
    return sum(len(word.display) + 1 for word in words) - 1


def _wrap(words: Sequence[Word]) -> tuple[str, ...]:
    """The words as one line, else as two of about the same length, the first rather with a mark at its end; () where
    they do not fit."""
    length = _length(words)
    if length <= LINE_CHARS:
        return (" ".join(word.display for word in words),)
    lefts = accumulate(len(word.display) + 1 for word in words[:-1])
    widths = ((max(left - 1, length - left), at) for at, left in enumerate(lefts, 1))
    fitting = [(width - LINE_ENDS[_mark(words[at - 1])], at) for width, at in widths if width <= LINE_CHARS]
    at = min(fitting, default=(0, 0))[1]
    return _wrap(words[:at]) + _wrap(words[at:]) if at else ()


def _timestamp(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"


def _dumps(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


class Layout:
    """A format as it grows: `begin` is the file without segments, of which `begin_stays` characters stay; `add` gives
    the text of one more segment that stays, and a tail that the next segment replaces."""

    def __init__(self, format: str) -> None:
        if format not in FORMATS:
            raise RillError(f"Unknown transcript format {format!r}: choose one of {', '.join(FORMATS)}.")
        self.format = format
        self.begin = {
            "vtt": "WEBVTT\n\n",
            "tsv": "start\tend\ttext\n",
            "json": '{\n  "segments": [],\n  "duration": 0.0\n}\n',
        }.get(format, "")
        self.begin_stays = self.begin.index("]") if format == "json" else len(self.begin)
        self.paragraphs = Paragraphs()
        self.count = 0  # segments, or cues, that stay
        self.last: tuple[Cue, ...] = ()  # the next segment may come before its shortest display is over

    def add(self, final: Final) -> tuple[str, str]:
        if self.format == "txt":
            return (self.paragraphs.before(final) + final.text, "\n") if final.punctuated else (f"{final.text}\n", "")
        if self.format == "tsv":
            return f"{round(final.start * 1000)}\t{round(final.end * 1000)}\t{final.text}\n", ""
        if self.format == "json":
            self.count += 1
            segment = (",\n" if self.count > 1 else "\n") + indent(_dumps(final.to_dict()), "    ")
            return segment, f'\n  ],\n  "duration": {round(final.end, 3)}\n}}\n'
        new = cues(final.words)
        shown = [*(_cut(cue, new[0]) for cue in self.last), *new]
        blocks = [self._block(cue, number) for number, cue in enumerate(shown, self.count + 1)]
        self.count, self.last = self.count + len(shown) - 1, (new[-1],)
        return "".join(blocks[:-1]), blocks[-1]

    def _block(self, cue: Cue, number: int) -> str:
        start, end, text = _timestamp(cue.start), _timestamp(cue.end), "\n".join(cue.lines)
        if self.format == "vtt":
            return f"{start} --> {end}\n{escape(text, quote=False)}\n\n"
        return f"{number}\n{start.replace('.', ',')} --> {end.replace('.', ',')}\n{text}\n\n"


def render(transcript: Transcript, format: str) -> str:
    """The transcript in one of `FORMATS`, else RillError; segments without words are left out, except in JSON."""
    layout = Layout(format)
    if format == "json":
        return _dumps(transcript.to_dict()) + "\n"
    parts, tail = [layout.begin], ""
    for final in (segment for segment in transcript.segments if segment.words):
        stays, tail = layout.add(final)
        parts.append(stays)
    return "".join(parts) + tail


def write(transcript: Transcript, path: str | Path) -> None:
    """`put` the transcript in the format of the path's suffix; raises RillError for a suffix not in `FORMATS`."""
    put(render(transcript, Path(path).suffix[1:].lower()), path)


def put(text: str, path: str | Path) -> None:
    """Write a file; makes its folder if it is missing.

    A reader, or a crash, finds the old text or the new one, never half. Raises OSError where the file cannot be
    written.
    """
    with replacing(Path(path)) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


class LiveWriter:
    """A transcript's file that is valid and complete up to the last final, also if the process is killed.

    Each final is one unbuffered write at the file's end, over the few bytes that it replaces: JSON's closing brackets,
    the last cue of subtitles (its end may move). So memory and work per final stay the same for days. The file equals
    `render` of the same segments, except that JSON has no top-level `text` (it would grow with the session) and its
    `duration` is the end of the last word. There is no fsync: a power cut may lose the last seconds.
    An existing file is replaced. Raises RillError for a suffix not in `FORMATS`, OSError where it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self._layout = Layout(path.suffix[1:].lower())
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - open until close()
        self._file.write(self._layout.begin.encode())
        self._stays = self._layout.begin_stays  # bytes that no later final changes

    def add(self, final: Final) -> None:
        """Write one final; one without words is left out."""
        if not final.words:
            return
        stays, tail = (text.encode() for text in self._layout.add(final))
        self._file.seek(self._stays)
        left = memoryview(stays + tail)
        while left:
            left = left[self._file.write(left) :]
        self._stays += len(stays)

    def close(self) -> None:
        """Nothing is pending: this only gives the file back."""
        self._file.close()
