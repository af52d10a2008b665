"""The spoken form of written text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.text.normalize import has_digits, normalize


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("WE CALL IT BEAR", "we call it bear"),
        ("Hello, world!", "hello world"),
        ("  tabs\tand\n lines ", "tabs and lines"),
        ("Don’t, won`t, o'clock", "don't won't o'clock"),
        ("'tis the dogs' 'quoted' rock ''n'' roll", "tis the dogs quoted rock n roll"),
        ("well-known – and — so on…", "well known and so on"),
        ("ﬁne ＡＢＣ", "fine abc"),
        ("Straße, ÉTÉ, Привет, नमस्ते, 日本語", "straße été привет नमस्ते 日本語"),
        ("E\u0301te\u0301", "été"),
        ("co\u00adoperate", "cooperate"),
        ("?! -- '", ""),
        ("", ""),
    ],
)
def test_letters_and_punctuation(written: str, spoken: str) -> None:
    assert normalize(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("84 River Road 814", "eighty four river road eight hundred and fourteen"),
        ("7204, McQueen", "seven thousand two hundred and four mcqueen"),
        ("in 1984.", "in one thousand nine hundred and eighty four"),
        ("1,234,567", "one million two hundred and thirty four thousand five hundred and sixty seven"),
        ("1,2,3", "one two three"),
        ("the 1st, 22nd and 103RD", "the first twenty second and one hundred and third"),
        ("pi is 3.14.", "pi is three point one four"),
        ("007", "zero zero seven"),
        ("1234567890123456", "one two three four five six seven eight nine zero one two three four five six"),
        ("$5", "five dollars"),
        ("$1", "one dollar"),
        ("$0.75", "seventy five cents"),
        ("£2.50", "two pounds fifty pence"),
        ("$1.5 million", "one point five million dollars"),
        ("3 million", "three million"),
        ("50%", "fifty percent"),
        ("2.5 %", "two point five percent"),
        ("10-20", "ten twenty"),
        ("mp3", "mp three"),
        ("at 10:30", "at ten thirty"),
    ],
)
def test_numbers(written: str, spoken: str) -> None:
    assert normalize(written) == spoken


@pytest.mark.parametrize(
    ("written", "language", "spoken"),
    [
        ("21 Äpfel für 3,50 €", "de", "einundzwanzig äpfel für drei euro fünfzig cent"),
        ("1.000 und 3,14", "de", "eintausend und drei komma eins vier"),
        ("50%", "fr", "cinquante pour cent"),
        ("watu 12", "sw", "watu 12"),  # not a language of num2words
    ],
)
def test_other_languages(written: str, language: str, spoken: str) -> None:
    assert normalize(written, language=language) == spoken


@given(st.text())
def test_normalized_text_stays_as_it_is(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert once == " ".join(once.split())
    assert not has_digits(once)


def test_has_digits() -> None:
    assert has_digits("route 66") and has_digits("٣") and has_digits("m²")
    assert not has_digits("sixty six") and not has_digits("五")
