"""Written text → the words of it as a recognizer gives them, each with the mark that follows it and its case.

This is what a tagger learns to restore (`asr.training.punctuation`) and what it is judged by. Four marks, as in Tilk &
Alumäe 2016, "Bidirectional recurrent neural network with attention mechanism for punctuation restoration": none, comma
(colons and dashes too), period (exclamation marks and semicolons too) and question mark. A word's case is the one that
it has in mid-sentence: what a capital at the beginning of a sentence hides is not known, and `IGNORE`d.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from asr.text.normalize import APOSTROPHES, normalize

NONE, COMMA, PERIOD, QUESTION = MARKS = range(4)
LOWER, CAPITAL, UPPER, MIXED = CASES = range(4)  # MIXED: as the list of such forms has it ("iPhone")
SENTENCE_ENDS = (PERIOD, QUESTION)
IGNORE = 255  # a label that is not known

SIGNS = {COMMA: ",،、，:：—–", PERIOD: ".。।॥!！;۔", QUESTION: "?？؟"}
MARK_OF = {sign: mark for mark, signs in SIGNS.items() for sign in signs}
QUOTES = "\"“”«»„‘’'"
DASH = re.compile(r"\s*(?:—|--+)\s*|\s+[-–]+\s+")
INITIALS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
CLITIC = re.compile(r"'\w{1,2}$")  # "NASA's" is written as "NASA" is

ABBREVIATION_CHARS = 5  # of the longest abbreviation that is looked for
ABBREVIATION_COUNT = 20
ABBREVIATION_SHARE = 0.8  # of its occurrences that a period follows
ABBREVIATION_ENDS = 0.05  # of them at most that end a paragraph
FORM_COUNT = 5  # occurrences of a mixed form that is listed
FORMS = 6000  # in the list


class Token(NamedTuple):
    """What stands between two spaces."""

    words: tuple[str, ...]
    forms: tuple[str, ...]  # the words as they are written
    cases: tuple[int, ...]
    mark: int
    sign: str  # what the mark was written as
    ellipsis: bool
    period: bool  # nothing else follows, so it may be an abbreviation's
    quoted: bool  # a quotation begins


class Labelled(NamedTuple):
    """Parallel lists: words, the mark after each, the case of each, and the words as they are written."""

    words: list[str]
    marks: list[int]
    cases: list[int]
    forms: list[str]


@lru_cache(maxsize=1 << 20)
def token(raw: str, language: str) -> Token:
    """Text without spaces, taken apart."""
    inside = [i for i, character in enumerate(raw) if unicodedata.category(character)[0] in "LMN"]
    if not inside:
        mark, sign = _mark(raw)
        return Token((), (), (), mark, sign, False, False, False)
    head, core, tail = raw[: inside[0]], raw[inside[0] : inside[-1] + 1], raw[inside[-1] + 1 :]
    forms = _forms(core.translate(APOSTROPHES))
    words = tuple(normalize(form, language) for form in forms)
    if any(map(str.isdigit, core)) or not all(words) or any(" " in word for word in words):
        sign = head[-1:] if head[-1:] in "$€£" else ""
        words = forms = tuple(normalize(sign + core + "%" * tail.startswith("%"), language).split())
    ellipsis = ".." in tail or "…" in tail
    mark, sign = _mark(tail)
    if ellipsis and mark != QUESTION:
        mark, sign = COMMA, ""
    return Token(
        words,
        forms,
        tuple(map(case_of, forms)),
        mark,
        sign,
        ellipsis and mark == COMMA,
        tail.strip(QUOTES + ")") == ".",
        any(quote in head for quote in QUOTES),
    )


def _forms(core: str) -> tuple[str, ...]:
    """Hyphens and the like part words, and addresses are read out: "example.com" is "example dot com"."""
    if not INITIALS.fullmatch(core):
        core = core.replace(".", " dot ")
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in core)
    return tuple(form for form in (form.strip("'") for form in kept.split()) if form)


def _mark(signs: str) -> tuple[int, str]:
    """A question mark wherever it stands, else the first sign that is a mark."""
    found = [(MARK_OF[sign], sign) for sign in signs if sign in MARK_OF]
    return next((each for each in found if each[0] == QUESTION), found[0] if found else (NONE, ""))


def case_of(form: str) -> int:
    """The case of a word as it is written."""
    letters = [c for c in CLITIC.sub("", form) if c.isalpha()]
    if form == form.lower() or not letters:
        return LOWER
    if letters[0].isupper() and not any(map(str.isupper, letters[1:])):
        return CAPITAL
    return MIXED if any(map(str.islower, letters)) else UPPER


def tokens(paragraph: str, language: str) -> list[Token]:
    return [token(raw, language) for raw in DASH.sub(" — ", paragraph).split()]


class Spelling:
    """What a language's texts show of its spelling: abbreviations, mixed forms and the signs of the marks."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.words: Counter[str] = Counter()
        self.periods: Counter[tuple[str, str]] = Counter()  # (word, form) with a period
        self.ends: Counter[str] = Counter()  # of them, at a paragraph's end
        self.mixed: Counter[tuple[str, str]] = Counter()
        self.signs: Counter[tuple[int, str]] = Counter()

    def add(self, paragraph: str) -> None:
        listed = tokens(paragraph, self.language)
        for place, each in enumerate(listed, 1):
            self.signs[each.mark, each.sign] += 1
            self.words.update(each.words)
            self.mixed.update(
                (word, form)
                for word, form, case in zip(each.words, each.forms, each.cases, strict=True)
                if case == MIXED
            )
            if each.period and len(each.words) == 1 and len(each.words[0]) <= ABBREVIATION_CHARS:
                self.periods[each.words[0], each.forms[0]] += 1
                self.ends[each.words[0]] += place == len(listed)

    def abbreviations(self) -> dict[str, str]:
        """Words that a period nearly always follows, as they are written: "mr" → "Mr."; after Kiss & Strunk 2006,
        "Unsupervised multilingual sentence boundary detection"."""
        count: Counter[str] = Counter()
        for (word, _), times in self.periods.items():
            count[word] += times
        return {
            word: f"{form}."
            for (word, form), _ in reversed(self.periods.most_common())
            if count[word] >= max(ABBREVIATION_COUNT, ABBREVIATION_SHARE * self.words[word])
            and self.ends[word] <= ABBREVIATION_ENDS * count[word]
        }

    def forms(self) -> dict[str, str]:
        """Words with capitals inside, as they are mostly written: "iphone" → "iPhone"."""
        frequent = [(word, form) for (word, form), times in self.mixed.most_common() if times >= FORM_COUNT]
        listed = dict(reversed(frequent))
        return dict(list(listed.items())[-FORMS:])

    def marks(self) -> list[str]:
        """The sign that each mark is mostly written with; "" for none."""
        best = {mark: sign for (mark, sign), _ in reversed(self.signs.most_common()) if sign}
        return ["", *(best.get(mark, SIGNS[mark][0]) for mark in MARKS[1:])]


def label(paragraphs: Iterable[str], language: str, abbreviations: Mapping[str, str]) -> Labelled:
    """One document's words with their labels. A paragraph that ends in no mark has none that is known there."""
    found = Labelled([], [], [], [])
    for paragraph in paragraphs:
        listed = tokens(paragraph, language)
        begin, first = len(found.words), True  # first: its capital may be due to its place
        for place, each in enumerate(listed):
            if not each.words:
                if len(found.words) > begin and found.marks[-1] == NONE:
                    found.marks[-1] = each.mark
                first = first or each.mark != NONE
                continue
            found.words.extend(each.words)
            found.cases.extend(each.cases)
            found.forms.extend(each.forms)
            if (first or each.quoted) and each.cases[0] in (LOWER, CAPITAL):
                found.cases[-len(each.words)] = IGNORE
            mark = each.mark
            if each.period or each.ellipsis:
                following = next((other for other in listed[place + 1 : place + 3] if other.words), None)
                mark = _resolve(each, following, abbreviations)
            found.marks.extend([NONE] * (len(each.words) - 1) + [mark])
            first = mark in SENTENCE_ENDS or each.ellipsis
        if len(found.words) > begin and found.marks[-1] == NONE:
            found.marks[-1] = IGNORE
    return found


def _resolve(each: Token, following: Token | None, abbreviations: Mapping[str, str]) -> int:
    """The mark after a token, where what follows tells: an abbreviation's period is none, an ellipsis ends a sentence
    or not."""
    if each.ellipsis:
        begins = following is None or (following.cases[0] != LOWER and following.words[0].split("'")[0] != "i")
        return PERIOD if begins else COMMA
    if each.period and following:
        initial = len(each.words[-1]) == 1 and each.words[-1].isalpha()
        if initial or each.words[-1] in abbreviations or following.forms[0][0].islower():
            return NONE
    return each.mark


def documents(lines: Iterable[str]) -> Iterator[list[str]]:
    """Paragraphs, one a line; an empty line ends a document."""
    document: list[str] = []
    for line in lines:
        if stripped := line.strip():
            document.append(stripped)
        elif document:
            yield document
            document = []
    if document:
        yield document
