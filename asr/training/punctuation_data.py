"""Text → batches that teach a tagger of punctuation what recognized speech is like.

Texts differ in size by far more than in worth: a text is drawn in proportion to the square root of its words, so that
a library of old books does not drown the talk of today. Some of each text's documents are held out, whole.

Recognized words have errors and pauses, which text has not: both are drawn at random here. A stretch of text begins
and ends at the bounds of sentences or anywhere, is short or long, and may stand for speech without known times.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np

from asr.errors import TrainingError
from asr.text.labels import (
    CAPITAL,
    COMMA,
    IGNORE,
    LOWER,
    MIXED,
    NONE,
    PERIOD,
    QUESTION,
    UPPER,
    Spelling,
    documents,
    label,
)

HELD_OUT_EVERY = 60  # documents of a text; one of them is not learned from
SPELLING_EVERY = 6  # documents; one of them is looked through for abbreviations and mixed forms
REPLACEMENTS = 60_000  # most frequent words that may stand where the recognizer erred
ROWS, LENGTH = 32, 128  # words of a batch

CLEAN = 0.6  # of the stretches have no recognition errors; of the others the rate is even up to
MAX_ERROR_RATE = 0.3
SUBSTITUTIONS, DELETIONS = 0.6, 0.2  # of the errors; the rest are insertions
ALIKE = 0.5  # of the wrong words that sound like the right ones

LEAST_ROOM = 24  # words, at the end of a row; with less, only what is cut off in mid-sentence would fit
LONG = 0.6  # of the stretches fill the rest of their row; the others have so many words:
SHORT_WORDS = (3, 50)
FROM_START = 0.7  # of the stretches begin where a sentence does
TO_END = 0.85  # end where one does: utterances mostly do
UNTIMED = 0.45  # are without pauses


class PauseShape(NamedTuple):
    """Pauses after one mark: how often there is none, and the logarithm of the others in seconds, a normal."""

    none: float
    mean: float
    deviation: float


# Fitted on gaps of 0.06 s and more between recognized words of LJSpeech, African Storybook, ARCTIC and Common Voice,
# whose texts have punctuation; all of it is read. Talk has more silence inside sentences and less between them, so the
# first is drawn wider (0.8, measured 0.5), there is more often none at a mark (0.2 and 0.02 measured), speakers differ.
PAUSES = {
    NONE: PauseShape(0.88, -1.9, 0.8),
    COMMA: PauseShape(0.3, -1.15, 0.55),
    PERIOD: PauseShape(0.1, -0.5, 0.55),
    QUESTION: PauseShape(0.1, -0.5, 0.55),
    IGNORE: PauseShape(0.1, -0.5, 0.55),
}
SPEAKER_NONE, SPEAKER_MEAN = 0.7, 0.35  # deviation between speakers of the log-odds of no pause, and of `mean`
FRAME_S = 0.04  # of a recognizer's times


@dataclass(frozen=True)
class LabelledText:
    """One text: word numbers (int32), marks and cases (uint8) of all its words; where documents start, and the end."""

    words: np.ndarray
    marks: np.ndarray
    cases: np.ndarray
    starts: np.ndarray


@dataclass(frozen=True)
class Corpus:
    """All that is learned from: each text by name, the words in order of their numbers, and the spelling."""

    texts: Mapping[str, LabelledText]
    words: Sequence[str]
    marks: list[str]
    forms: dict[str, str]
    abbreviations: dict[str, str]

    def save(self, path: Path) -> None:
        arrays = {
            f"{name}.{part}": getattr(text, part)
            for name, text in self.texts.items()
            for part in LabelledText.__dataclass_fields__
        }
        facts = json.dumps([list(self.words), self.marks, self.forms, self.abbreviations])
        with open(path, "wb") as file:
            np.savez(file, facts=np.frombuffer(facts.encode(), np.uint8), **arrays)

    @classmethod
    def load(cls, path: Path) -> Corpus:
        """Raises TrainingError where `save` did not write the file."""
        try:
            with np.load(path) as stored:
                names = dict.fromkeys(key.rpartition(".")[0] for key in stored.files if "." in key)
                texts = {
                    name: LabelledText(*(stored[f"{name}.{part}"] for part in LabelledText.__dataclass_fields__))
                    for name in names
                }
                return cls(texts, *json.loads(stored["facts"].tobytes()))
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f"{path} is missing or broken: start again without --resume.") from error


def open_text(path: Path) -> IO[str]:
    """UTF-8 text, plain or .gz, .bz2, .xz."""
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast("IO[str]", openers.get(path.suffix, open)(path, "rt", encoding="utf-8"))


def read(
    texts: Sequence[Path], language: str, held_out: Path, report: Callable[[str, int], None] = lambda name, words: None
) -> Corpus:
    """Label the texts; one document in `HELD_OUT_EVERY` goes to the folder `held_out` as it is, under the text's name.

    A text has a paragraph or a speaker's turn a line, and an empty line between documents. `report` is told the words
    of each text as it is done. Raises TrainingError for a text that cannot be read or has no words.
    """
    try:
        spelling = Spelling(language)
        for path in texts:
            with open_text(path) as file:
                for document in islice(documents(file), None, None, SPELLING_EVERY):
                    for paragraph in document:
                        spelling.add(paragraph)
        abbreviations, forms = spelling.abbreviations(), spelling.forms()
        held_out.mkdir(parents=True, exist_ok=True)
        numbers: dict[str, int] = {}
        labelled: dict[str, LabelledText] = {}
        for path in texts:
            name = path.name.partition(".")[0]
            words, marks, cases, starts = array("i"), bytearray(), bytearray(), array("q", [0])
            with open_text(path) as file, open(held_out / f"{name}.txt", "w", encoding="utf-8") as kept:
                for count, document in enumerate(documents(file), 1):
                    if count % HELD_OUT_EVERY == 0:
                        kept.write("\n".join(document) + "\n\n")
                        continue
                    found = label(document, language, abbreviations)
                    words.extend([numbers.setdefault(word, len(numbers)) for word in found.words])
                    marks += bytes(found.marks)
                    cases += bytes(
                        case if case != MIXED or word in forms else CAPITAL
                        for word, case in zip(found.words, found.cases, strict=True)
                    )
                    starts.append(len(words))
            if not words:
                raise TrainingError(f"{path} has no words to learn from.")
            labelled[name] = LabelledText(
                np.array(words, np.int32),
                np.frombuffer(bytes(marks), np.uint8),
                np.frombuffer(bytes(cases), np.uint8),
                np.array(starts),
            )
            report(name, len(words))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} cannot be read ({error}): give UTF-8 text, plain or .gz, .bz2, .xz.") from error
    return Corpus(without_shouts(labelled), list(numbers), spelling.marks(), forms, abbreviations)


def without_shouts(texts: Mapping[str, LabelledText]) -> dict[str, LabelledText]:
    """The same texts, but the case of "CHAPTER ONE" and "MY DEAR SIR" is not known there.

    Where words on end are in capitals and one of them is mostly small, it is a heading, or somebody shouts. A word that
    is alone in capitals may be an acronym ("US").
    """
    size = 1 + max(int(text.words.max()) for text in texts.values())
    known, small = np.zeros((2, size), np.int64)
    for text in texts.values():
        known += np.bincount(text.words[text.cases != IGNORE], minlength=size)
        small += np.bincount(text.words[text.cases == LOWER], minlength=size)
    found = {}
    for name, text in texts.items():
        places = np.flatnonzero(text.cases == UPPER)
        run = np.cumsum(np.diff(places, prepend=-2) > 1) - 1  # of which each is part
        shouts = (np.bincount(run) > 1) & (np.bincount(run, (2 * small > known)[text.words[places]]) > 0)
        cases = text.cases.copy()
        cases[places[shouts[run]]] = IGNORE
        found[name] = replace(text, cases=cases)
    return found


class Stretch(NamedTuple):
    """Some words on end, with labels and the pause after each, in seconds; NaN where it is not known."""

    words: np.ndarray
    marks: np.ndarray
    cases: np.ndarray
    pauses: np.ndarray


class Batches:
    """Draws batches from a corpus; batch n is the same on every run."""

    def __init__(self, corpus: Corpus) -> None:
        self.texts = list(corpus.texts.values())
        shares = np.sqrt([len(text.words) for text in self.texts])
        self.shares = shares / shares.sum()
        self.counts = sum(
            (np.bincount(text.words, minlength=len(corpus.words)) for text in self.texts),
            np.zeros(len(corpus.words), np.int64),
        )
        self.frequent = np.argsort(-self.counts, kind="stable")
        self._wrong = self.frequent[:REPLACEMENTS]
        weights = self.counts[self._wrong] ** 0.75
        self._wrong_shares = np.cumsum(weights) / weights.sum()
        sounds: defaultdict[str, list[int]] = defaultdict(list)
        for number in self._wrong.tolist():
            sounds[consonants(corpus.words[number])].append(number)
        self._alike = {number: alike for alike in sounds.values() if len(alike) > 1 for number in alike}

    def batch(self, number: int) -> Stretch:
        """Words (rows, length) with their labels; -1 between stretches and at a row's ends."""
        rng = np.random.default_rng(number)
        shape = (ROWS, LENGTH)
        found = Stretch(np.full(shape, -1), np.full(shape, IGNORE), np.full(shape, IGNORE), np.full(shape, np.nan))
        for row in range(ROWS):
            at = 1
            while at < LENGTH - LEAST_ROOM:
                drawn = self._stretch(rng, LENGTH - 1 - at)
                for part, values in zip(found, drawn, strict=True):
                    part[row, at : at + len(values)] = values
                at += len(drawn.words) + 1
        return found

    def _stretch(self, rng: np.random.Generator, room: int, tries: int = 8) -> Stretch:
        text = self.texts[rng.choice(len(self.texts), p=self.shares)]
        place = rng.integers(len(text.words))
        document = np.searchsorted(text.starts, place, side="right") - 1
        first, end = text.starts[document], text.starts[document + 1]
        wanted = room if rng.random() < LONG else min(room, int(rng.integers(*SHORT_WORDS)))
        begin = max(first, min(place, end - wanted))
        if rng.random() < FROM_START:
            before = np.flatnonzero(np.isin(text.marks[first:begin][-LENGTH:], (PERIOD, QUESTION, IGNORE)))
            begin = begin - len(text.marks[first:begin][-LENGTH:]) + before[-1] + 1 if len(before) else first
        if rng.random() < TO_END:  # the first one that makes it as long as wanted, else the last that there is room for
            ends = np.flatnonzero(np.isin(text.marks[begin : min(end, begin + room)], (PERIOD, QUESTION))) + 1
            if not len(ends) and tries:
                return self._stretch(rng, room, tries - 1)
            wanted = int(next((each for each in ends if each >= wanted), ends[-1] if len(ends) else wanted))
        taken = slice(begin, min(end, begin + wanted))
        words, marks, cases = text.words[taken], text.marks[taken], text.cases[taken]
        if rng.random() >= CLEAN:
            words, marks, cases = self._misrecognize(rng, words, marks, cases, rng.uniform(0, MAX_ERROR_RATE))
            words, marks, cases = words[:room], marks[:room], cases[:room]
        pauses = np.full(len(words), np.nan) if rng.random() < UNTIMED else draw_pauses(rng, marks)
        pauses[-1:] = np.nan  # how long it will be is not known yet
        return Stretch(words, marks, cases, pauses)

    def _misrecognize(
        self, rng: np.random.Generator, words: np.ndarray, marks: np.ndarray, cases: np.ndarray, rate: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Words replaced, dropped and inserted. A dropped word's mark goes to the word before it; the case of a wrong
        word is not known unless it is small."""
        luck = rng.random(len(words)) / rate
        words, marks, cases = words.copy(), marks.copy(), cases.copy()
        replaced = np.flatnonzero(luck < SUBSTITUTIONS)
        words[replaced] = self._wrong_words(rng, words[replaced])
        cases[replaced] = np.where(cases[replaced] > 0, IGNORE, cases[replaced])
        times = np.ones(len(words), int)
        dropped = np.flatnonzero((luck >= SUBSTITUTIONS) & (luck < SUBSTITUTIONS + DELETIONS))
        for place in dropped[dropped > 0]:
            if marks[place] != NONE and marks[place - 1] in (NONE, COMMA):
                marks[place - 1] = marks[place]
        times[dropped] = 0
        times[(luck >= SUBSTITUTIONS + DELETIONS) & (luck < 1)] = 2
        source = np.repeat(np.arange(len(words)), times)
        words, marks, cases = words[source], marks[source], cases[source]
        inserted = np.flatnonzero(source[:-1] == source[1:])  # the first of two stands before the word that is there
        words[inserted] = self._wrong_words(rng, words[inserted])
        marks[inserted], cases[inserted] = NONE, IGNORE
        return words, marks, cases

    def _wrong_words(self, rng: np.random.Generator, right: np.ndarray) -> np.ndarray:
        wrong = self._wrong[np.searchsorted(self._wrong_shares, rng.random(len(right)))]
        for place in np.flatnonzero(rng.random(len(right)) < ALIKE):
            if alike := self._alike.get(int(right[place])):
                wrong[place] = alike[rng.integers(len(alike))]
        return wrong


def consonants(word: str) -> str:
    """A crude key of how a word sounds: its first letter and the consonants after it."""
    return word[:1] + re.sub("[aeiouyhw']", "", word[1:])


def draw_pauses(rng: np.random.Generator, marks: np.ndarray) -> np.ndarray:
    """Seconds of silence after each word of one speaker, given the marks."""
    hurry, slowness = rng.normal(0, SPEAKER_NONE), rng.normal(0, SPEAKER_MEAN)
    pauses = np.zeros(len(marks))
    for mark, shape in PAUSES.items():
        places = np.flatnonzero(marks == mark)
        none = 1 / (1 + math.exp(-math.log(shape.none / (1 - shape.none)) - hurry))
        drawn = np.exp(rng.normal(shape.mean + slowness, shape.deviation, len(places)))
        pauses[places] = np.where(rng.random(len(places)) < none, 0.0, drawn)
    return np.round(pauses / FRAME_S) * FRAME_S
