import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from num2words import num2words

from asr.text.numerals import numerals
from asr.text.results import Word


def spoken(text: str, gap: float = 0.1) -> list[Word]:
    """Words of 0.3 s; "|" makes a pause of 1 s."""
    words, now = [], 0.0
    for token in text.split():
        if token == "|":
            now += 1.0
            continue
        words.append(Word(token, now, now + 0.3, 0.9))
        now += 0.3 + gap
    return words


PHRASES = """
twenty three = 23
ninety nine point nine = 99.9
three point one four = 3.14
zero point five = 0.5
twelve thousand five hundred = 12500
one hundred and twenty three thousand four hundred and five = 123405
a hundred and five people = 105 people
a hundred thousand = 100000
ten green bottles = 10 green bottles

nineteen eighty four = 1984
in nineteen oh five = in 1905
in nineteen o five = in 1905
nineteen hundred = 1900
nineteen hundred and five = 1905
two thousand and six = 2006
two thousand six = 2006
twenty twenty one = 2021
twenty ten = 2010
twenty oh six = 2006
ten sixty six = 1066
seventeen seventy six = 1776
may twenty first nineteen forty = may 21st 1940
march sixteen nineteen oh eight = march 16 1908
seventeen eighteen nineteen = 17 18 19
the nineteen eighties = the 1980s
the roaring twenties = the roaring twenties
the nineteen hundreds = the nineteen hundreds
twenty thirty forty = 20 30 40
fifteen | twenty minutes = 15 20 minutes

ten thirty a m = 10:30 a.m.
ten thirty am = 10:30 a.m.
five p m = 5 p.m.
five oh five p m = 5:05 p.m.
twelve fifteen pm sharp = 12:15 p.m. sharp
thirteen p m = 13 p m
at ten thirty = at 10:30
at ten thirty five = at 10:35
at ten oh five = at 10:05
until one fifteen = until 1:15
ten thirty = 10 30
at ten sixty six = at 1066
eight o'clock = 8 o'clock
at eleven o'clock = at 11 o'clock
half past ten = half past 10
half past five = half past five
quarter to five = quarter to five

twenty first = 21st
the twelfth night = the 12th night
the one hundredth time = the 100th time
the second of may = the second of may
first second third = first second third
one tenth of it = one tenth of it
two thirds = two thirds
one second = one second
a thirty second pause = a thirty second pause
the twenty second of june = the 22nd of june

one hundred percent = 100%
a hundred percent = 100%
five percent = 5%
five per cent of them = 5% of them
two point five percent = 2.5%
the twentieth percent = the twentieth percent

two hundred and fifty dollars = $250
twelve thousand five hundred dollars a year = $12,500 a year
two dollars and fifty cents = $2.50
five dollars fifty cents each = $5.50 each
two million dollars = $2 million
one point five million euros = €1.5 million
twenty dollars and ten people = $20 and 10 people
the third dollar = the third dollar
twenty pounds = 20 pounds

zero three five one = 0351
nine one one = 911
one oh one = 101
oh two oh seven nine four six = 0207946
room four oh four please = room 404 please
zero zero seven = 007
five five five | twelve = 555 12
five five five one two three four = 555-1234
call five five five one two three four five six seven = call 555-123-4567
one two = one two
oh one day = oh one day
oh one hundred people = oh 100 people
zero zero and zero two = zero zero and zero two
oh oh and oh oh = oh oh and oh oh
oh no = oh no

one = one
one of the two thousand people = one of the 2000 people
two or three = two or three
five and six = five and six
five or ten = five or 10
six sixty six = six 66
a hundred = a hundred
several thousand = several thousand
several hundred and five = several hundred and five
hundreds of thousands = hundreds of thousands
two million = two million
twelve million people = 12 million people
one point five million = 1.5 million
two million three hundred thousand = 2300000
a million = a million
two billion three million = 2003000000
at one point five people left = at one point five people left
at this point = at this point
minus twenty = minus 20
23 = 23
twenty | three = 20 three
""".strip().splitlines()


@pytest.mark.parametrize("phrase", [line for line in PHRASES if line])
def test_phrase(phrase):
    said, written = phrase.split(" = ")
    assert " ".join(word.display for word in numerals(spoken(said))) == written


def said(*parts: str) -> str:
    """The text of the numerals of what num2words says."""
    words = re.sub(r"[-,]", " ", " ".join(parts)).split()
    return " ".join(word.display for word in numerals(spoken(" ".join(words))))


@given(st.integers(10, 999_999))
def test_numbers_as_num2words_says_them(number):
    assert said(num2words(number)) == str(number)


@given(st.integers(1300, 2099))
def test_years_as_num2words_says_them(year):
    assert said("in", num2words(year, to="year")) == f"in {year}"


@given(st.integers(1, 12), st.integers(0, 59), st.sampled_from("ap"))
def test_times(hour, minute, half):
    minutes = f"oh {num2words(minute)}" if minute < 10 else num2words(minute)
    assert said(num2words(hour), minutes, half, "m") == f"{hour}:{minute:02} {half}.m."


def test_nothing():
    assert numerals([]) == ()


def test_merged_word_spans_its_words_and_takes_the_lowest_confidence():
    words = [
        Word("in", 0.0, 0.2, 0.9),
        Word("nineteen", 0.3, 0.6, 0.8),
        Word("eighty", 0.7, 0.9, 0.4),
        Word("four", 1.0, 1.25, 0.7),
        Word("it", 1.3, 1.4, 0.6),
    ]
    assert numerals(words) == (words[0], Word("nineteen eighty four", 0.3, 1.25, 0.4, "1984"), words[4])


def test_time_and_half_of_the_day_are_two_words():
    written = numerals(spoken("ten thirty a m"))
    assert [(word.display, word.start, word.end) for word in written] == [
        ("10:30", 0.0, pytest.approx(0.7)),
        ("a.m.", pytest.approx(0.8), pytest.approx(1.5)),
    ]


def test_marks_stay_after_numbers_and_part_them():
    words = [
        Word(raw, at, at + 0.9, 0.9, written)
        for at, (raw, written) in enumerate(
            [
                ("on", "On"),
                ("twenty", "twenty"),
                ("one", "one"),
                ("may", "May"),
                ("two", "two"),
                ("thousand", "thousand"),
                ("six", "six,"),
                ("fifty", "fifty"),
                ("five", "five"),
                ("left", "left,"),
                ("i", "I"),
                ("paid", "paid"),
                ("ten", "ten"),
                ("dollars", "dollars."),
            ]
        )
    ]
    assert " ".join(word.display for word in numerals(words)) == "On 21 May 2006, 55 left, I paid $10."
    late = [Word("five", 0.0, 0.3, 0.9, "Five"), Word("p", 0.4, 0.5, 0.9, "p"), Word("m", 0.6, 0.7, 0.9, "m.")]
    assert " ".join(word.display for word in numerals(late)) == "5 p.m."


def written(text: str, gap: float = 0.1) -> str:
    """The numerals of words as written."""
    words = [
        replace(word, text=word.text.lower().strip(",.?"), written=word.text) for word in spoken(text.strip(), gap)
    ]
    return " ".join(word.display for word in numerals(words))


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("On twenty one may twenty twenty four it cost", "On 21 May 2024 it cost"),
        ("On twenty one may two thousand six it cost", "On 21 May 2006 it cost"),
        ("twenty one may be enough", "21 may be enough"),
        ("On May twenty first nineteen, eighty four.", "On May 21st 1984."),
        ("in nineteen. Oh five, and later", "in 1905, and later"),
        ("Group nineteen, twenty people", "Group 19, 20 people"),
        ("Call five five five, one, two, three, four, five, six seven.", "Call 555-123-4567."),
        ("So one, two, three, four, five, six, seven.", "So one, two, three, four, five, six, seven."),
        ("on June third.", "on June 3rd."),
        ("You may third it", "You may third it"),
    ],
)
def test_marks_and_months_around_numbers(sentence, expected):
    assert written(sentence) == expected


def test_pauses_part_numbers_whatever_the_marks():
    assert written("in nineteen, | eighty four", gap=0.1) == "in 19, 84"


PLAIN = ["the", "people", "oh", "o", "i", "am", "m", "was", "and", "point", "at", "a", "percent", "o'clock", "house"]
NUMBER = [
    "zero",
    "one",
    "two",
    "five",
    "eight",
    "nine",
    "ten",
    "eleven",
    "thirteen",
    "nineteen",
    "twenty",
    "thirty",
    "eighty",
    "hundred",
    "thousand",
    "million",
    "billion",
    "first",
    "second",
    "third",
    "tenth",
    "twentieth",
    "hundredth",
    "eighties",
    "hundreds",
    "thirds",
    "twenty-three",
    "p",
    "per",
    "cent",
    "until",
]


@st.composite
def utterances(draw, vocabulary):
    words, now = [], 0.0
    for text in draw(st.lists(st.sampled_from(vocabulary), max_size=14)):
        now += draw(st.sampled_from([0.0, 0.1, 0.1, 0.1, 0.7]))
        end = now + draw(st.sampled_from([0.1, 0.3]))
        words.append(Word(text, now, end, draw(st.floats(0, 1))))
        now = end
    return words


@settings(max_examples=300, deadline=None)
@given(utterances(PLAIN + NUMBER))
def test_times_stay_in_order_and_cover_the_same_span(words):
    written = numerals(words)
    times = [time for word in written for time in (word.start, word.end)]
    assert times == sorted(times)
    starts, ends = {word.start for word in words}, {word.end for word in words}
    assert all(word.start in starts and word.end in ends for word in written)
    if words:
        assert (written[0].start, written[-1].end) == (words[0].start, words[-1].end)
        assert min(word.confidence for word in written) == min(word.confidence for word in words)


@settings(max_examples=300, deadline=None)
@given(utterances(PLAIN))
def test_words_that_are_no_numbers_stay(words):
    assert numerals(words) == tuple(words)


@given(st.lists(st.text(min_size=1, max_size=8), max_size=6))
def test_any_text_is_survived(texts):
    words = [Word(text, float(at), at + 0.9, 0.5) for at, text in enumerate(texts)]
    assert numerals(words)[-1:] == () or numerals(words)[-1].end == words[-1].end
