"""Spoken numbers in digits: "nineteen eighty four" → "1984", "ten thirty a m" → "10:30 a.m.". English only.

The words may be written as sentences already (`asr.text.sentences`): marks part numbers and stay after them.
The grammar of numbers is the library text2num's (https://github.com/allo-media/text2num). Here is what needs a number's
neighbors: years, clock times, telephone numbers, percentages, money, and what is better left in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise, takewhile
from types import SimpleNamespace
from typing import NamedTuple

from text_to_num import find_numbers

from asr.text.labels import MARK_OF
from asr.text.results import Word

PAUSE_S = 0.5  # seconds without a word that part two numbers
OH = {"oh", "o"}  # zero, beside another digit
DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", *OH}
MILLIONS = {"million": 6, "billion": 9, "trillion": 12}
SCALES = {"hundred", "thousand", *MILLIONS}
DECADES = {
    "twenties": "20s",
    "thirties": "30s",
    "forties": "40s",
    "fifties": "50s",
    "sixties": "60s",
    "seventies": "70s",
    "eighties": "80s",
    "nineties": "90s",
}
MONTHS = {
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
}
HALVES = {("a", "m"): "a.m.", ("p", "m"): "p.m.", ("am",): "a.m.", ("pm",): "p.m."}
CURRENCIES = {"dollar": "$", "dollars": "$", "euro": "€", "euros": "€"}  # a pound may be a weight
CENTS = {"cent", "cents"}
PERCENT = {("percent",), ("per", "cent")}
TELEPHONE_DIGITS, LONGEST_TELEPHONE_DIGITS = 7, 15  # American without the area; ITU-T E.164
OTHER = "x"  # stands for a word that is no part of a number; text2num skips an empty one
PLURALS = {"hundreds", "thousands"}  # "the nineteen hundreds"


def numerals(words: Sequence[Word]) -> tuple[Word, ...]:
    """The words with numbers and times in digits; all other words stay as they are.

    In sentences a month between a day and a year begins with a capital ("21 May 2024"), and a mark inside a year or a
    telephone number is dropped.

    Digits: numbers from ten on ("23", "2006", "3.14", "21st", "12 million"), years ("1984", "1905", "1980s"), three or
    more digits in a row ("0351"), telephone numbers ("555-123-4567"), percentages ("5%"), money ("$250", "$2.50"),
    times with a m, p m, o'clock or "at" ("10:30 a.m.", "8 o'clock").
    Words: numbers and ordinals below ten that stand alone, "a hundred", "one tenth", "several thousand", "half past".
    A merged word lasts from the start of its first word to the end of its last; its confidence is their minimum, its
    text the raw words, and the digits are how it is `written`.
    """
    result: list[Word] = []
    pauses = [at for at in range(1, len(words)) if words[at].start - words[at - 1].end >= PAUSE_S]
    for part in _cut(words, pauses):
        inside = _inside(_units(part))
        marks = [at for at in range(1, len(part)) if part[at - 1].display[-1:] in MARK_OF and at not in inside]
        for clause in _cut(part, marks):
            result += _written(_units(clause))
    return tuple(result)


def _cut(words: Sequence[Word], places: Sequence[int]) -> list[Sequence[Word]]:
    return [words[first:stop] for first, stop in pairwise([0, *places, len(words)])]


class _Unit(NamedTuple):
    """A number: its words, what they say and how that is written in digits; or another word, with its own text."""

    words: Sequence[Word] = ()
    said: Sequence[str] = ()
    text: str = ""
    number: bool = False
    ordinal: bool = False

    @property
    def digits(self) -> bool:
        return self.number and DIGITS.issuperset(self.said)

    def within(self, low: int, high: int) -> bool:
        return self.number and self.text.isdecimal() and low <= int(self.text) <= high

    @property
    def pair(self) -> bool:
        return self.within(0, 99) and len(self.text) == 2


def _token(spoken: str) -> SimpleNamespace:
    """What text2num's `find_numbers` asks of a word."""
    return SimpleNamespace(text=lambda: spoken, nt_separated=lambda previous: False, not_a_number_part=lambda: False)


def _units(words: Sequence[Word]) -> list[_Unit]:
    """The words with text2num's numbers put together; "two million" is "2" and the word "million"."""
    said = [word.text for word in words]
    around = ["", "", *said, ""]
    tokens = [_token(_spoken(*around[at : at + 4])) for at in range(len(words))]
    units: list[_Unit] = []
    at = 0
    for found in find_numbers(tokens, "en", threshold=0.0):
        start, stop, text = found.start, found.end, found.text
        if said[stop - 1] in MILLIONS and len(MILLIONS.keys() & set(said[start:stop])) == 1:
            stop, text = stop - 1, text[: -MILLIONS[said[stop - 1]]]
        leading = re.match(r"0+(?=\d)", text)  # "oh one hundred people" is "0" and "100"
        zeros = leading.end() if leading and not DIGITS.issuperset(said[start:stop]) else 0
        for first, end, digits in ((start, start + zeros, text[:zeros]), (start + zeros, stop, text[zeros:])):
            sigh = OH.issuperset(said[first:end]) and not (units and units[-1].digits and at == first)  # "oh oh"
            if first < end and not sigh:
                units += [_Unit([word], [word.text], word.text) for word in words[at:first]]
                units.append(_Unit(words[first:end], said[first:end], digits, True, not digits[-1].isdigit()))
                at = end
    return units + [_Unit([word], [word.text], word.text) for word in words[at:]]


def _spoken(second_last: str, last: str, word: str, following: str) -> str:
    """The word as text2num should read it, OTHER for one that is no part of a number."""
    if word in OH:
        return "zero" if {last, following} & DIGITS else OTHER
    if word == "a" and following in SCALES:
        return "one"
    mistaken = (second_last, last, word) == ("at", "one", "point") or (word == "and" and last not in SCALES)
    return OTHER if mistaken or word.endswith("s") else word  # text2num takes "hundreds" for 100


def _inside(units: Sequence[_Unit]) -> set[int]:
    """Places between words of a telephone number, or of a year such as "nineteen, eighty four": no mark parts them."""
    padded = [_Unit(), _Unit(), *units, *[_Unit()] * 3]
    places = list(accumulate((len(unit.words) for unit in units), initial=0))
    found: set[int] = set()
    for at, place in enumerate(places[:-1]):
        run = list(takewhile(lambda unit: unit.digits, units[at : at + LONGEST_TELEPHONE_DIGITS]))
        digits = "".join(unit.text for unit in run)
        counted = digits in "0123456789"
        if len(digits) >= TELEPHONE_DIGITS and not counted:
            found.update(range(place + 1, places[at + len(run)]))
        elif _is_year(padded, at + 2) and len(padded[at + 3].words) == 2:
            found.add(places[at + 1])
    return found


def _written(units: Sequence[_Unit]) -> Iterator[Word]:
    padded = [_Unit(), _Unit(), *units, *[_Unit()] * 5]
    at = 2
    while at < len(units) + 2:
        for text, count in _digits(padded, at) or [("", 1)]:
            words = [word for unit in padded[at : at + count] for word in unit.words]
            at += count
            if text:
                mark = words[-1].display[-1:] if words[-1].display[-1:] in MARK_OF else ""
                yield Word(
                    " ".join(word.text for word in words),
                    words[0].start,
                    words[-1].end,
                    min(word.confidence for word in words),
                    text if text.endswith(mark) else text + mark,
                )
            else:
                yield from words


def _digits(units: Sequence[_Unit], at: int) -> list[tuple[str, int]]:
    """What begins at unit `at`, in digits: texts, each with the number of its units; nothing to keep the words."""
    before, number, second, third = units[at - 1 : at + 3]
    year = second.within(1000, 2100) or _is_year(units, at + 1)
    if number.text in MONTHS and number.words[0].written and before.number and year:
        return [(number.text.capitalize(), 1)]  # "21 May 2024": the tagger takes "may" for the verb
    if not number.number:
        return []
    if number.within(1, 12):
        clock, count = (f"{number.text}:{second.text}", 2) if second.pair and second.within(0, 59) else (number.text, 1)
        tail = tuple(unit.text for unit in units[at + count : at + count + 2])
        for half in HALVES.keys() & {tail[:1], tail}:
            return [(clock, count), (HALVES[half], len(half))]
        if (count == 1 and second.text == "o'clock") or (count == 2 and before.text in {"at", "until", "till"}):
            return [(clock, count)]
    run = list(takewhile(lambda unit: unit.digits, units[at:]))
    if sum(len(unit.words) for unit in run) >= 3:
        return [(_telephone("".join(unit.text for unit in run)), len(run))]
    if money := _money(units[at : at + 6]):
        return [money]
    if number.within(13, 20) and second.text in DECADES:
        return [(number.text + DECADES[second.text], 2)]
    if _is_year(units, at):
        return [(number.text + second.text, 2)]
    for sign in PERCENT & {(second.text,), (second.text, third.text)}:
        return [] if number.ordinal else [(f"{number.text}%", 1 + len(sign))]
    date = before.text in MONTHS and before.words[0].display[0].isupper()  # "June third"
    small = number.digits or (number.ordinal and len(number.text) == 3 and not date)
    vague = number.said[0] in SCALES or (number.said[0] == "a" and len(number.said) <= 2) or second.text in PLURALS
    fraction = number.ordinal and before.text[-1:].isdigit()  # "one tenth"
    duration = before.text == "a" and number.said[-1] == "second"  # "a thirty second pause"
    return [] if small or vague or fraction or duration else [(number.text, 1)]


def _is_year(units: Sequence[_Unit], at: int) -> bool:
    """Whether two units are a year, such as "nineteen" and "eighty four"."""
    before, number, second, third = units[at - 1 : at + 3]
    century = number.within(13, 20) or (number.within(10, 12) and second.within(60, 99))  # "ten thirty": perhaps a time
    new = not before.pair or units[at - 2].text in MONTHS  # "seventeen eighteen nineteen" is no year
    return century and second.pair and new and not third.pair


def _telephone(digits: str) -> str:
    """American numbers in groups, all others as they are."""
    if digits.startswith("0") or len(digits) not in (TELEPHONE_DIGITS, 10):
        return digits
    return "-".join(part for part in (digits[:-7], digits[-7:-4], digits[-4:]) if part)


def _money(units: Sequence[_Unit]) -> tuple[str, int] | None:
    """A sum that begins with the first unit, and the number of its units: "$12,500", "$2.50", "€1.5 million"."""
    number, scale = units[0], units[1].text if units[1].text in MILLIONS else ""
    count = 3 if scale else 2
    sign = CURRENCIES.get(units[count - 1].text)
    if not sign or number.ordinal:
        return None
    amount = f"{int(number.text):,}" if number.text.isdecimal() else number.text
    link = units[count].text == "and"
    cents, unit = units[count + link : count + link + 2]
    if not scale and number.text.isdecimal() and cents.within(1, 99) and unit.text in CENTS:
        return f"{sign}{amount}.{int(cents.text):02}", count + link + 2
    return f"{sign}{amount}{' ' * bool(scale)}{scale}", count
