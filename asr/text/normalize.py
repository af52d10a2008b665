"""Written text to the words that are said: one form for training, language models and scoring."""

from __future__ import annotations

import re
import unicodedata

from num2words import num2words

APOSTROPHES = dict.fromkeys(map(ord, "’‘‛ʼ′´`"), "'")
CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP"}
PERCENT = {"en": "percent", "de": "prozent", "es": "por ciento", "fr": "pour cent", "it": "per cento"}
LONGEST_NUMBER = 15  # digits; a longer one is the number of a card or an account, said digit by digit


def _number(thousands: str, point: str, ordinal: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?P<sign>[$€£])?\s?(?P<whole>\d{{1,3}}(?:{thousands}\d{{3}})+(?!\d)|\d+)(?P<decimals>{point}\d+)?"
        rf"(?:(?P<ordinal>{ordinal})\b|\s?(?P<unit>[%$€£])|\s(?P<scale>(?:thousand|million|billion|trillion)\b))?",
        re.IGNORECASE,
    )


ENGLISH_NUMBER = _number(",", r"\.", "st|nd|rd|th")  # 1,234.5 and 21st
OTHER_NUMBER = _number(r"\.", ",", "(?!)")  # 1.234,5; ordinals look different in each language


def normalize(text: str, language: str = "en") -> str:
    """The spoken words of `text`: lower case, one space between words, numbers spelled out.

    Unicode NFKC; letters and marks of any alphabet stay, and apostrophes inside words; hyphens and all other
    punctuation part words. Numbers go through num2words in `language` (a code such as "en" or "pt_BR"): cardinals
    (years too), decimals, English ordinals, money and percent. Digits that num2words cannot say in that language
    stay digits: `has_digits` finds such text.
    """
    text = unicodedata.normalize("NFKC", text.translate(APOSTROPHES))
    number = ENGLISH_NUMBER if language.startswith("en") else OTHER_NUMBER
    text = number.sub(lambda found: f" {_spell(found, language)} ", text)
    text = unicodedata.normalize("NFKC", text.lower())
    text = re.sub("''+", " ", "".join(map(_keep, text)))
    words = (word.strip("'") for word in text.split())
    return " ".join(word for word in words if any(map(str.isalnum, word)))


def has_digits(text: str) -> bool:
    """Whether any digit stands in `text`, so that what was said cannot be known for sure."""
    return any(map(str.isdigit, text))


def _keep(character: str) -> str:
    """Letters, marks, decimal digits and apostrophes stay; invisible format characters go; the rest parts words."""
    category = unicodedata.category(character)
    if category[0] in "LM" or category == "Nd" or character == "'":
        return character
    return "" if category == "Cf" else " "


def _spell(found: re.Match[str], language: str) -> str:
    """One number in words; the digits as they are where num2words has no words for them."""
    whole = re.sub(r"\D", "", found["whole"])
    amount = whole + ("." + found["decimals"][1:] if found["decimals"] else "")
    unit = found["sign"] or found["unit"]
    try:
        if found["ordinal"]:
            return num2words(int(whole), to="ordinal", lang=language)
        if unit in CURRENCIES and found["scale"]:
            plural = _money("2", unit, language).split(" ", 1)[1]
            return f"{num2words(amount, lang=language)} {found['scale']} {plural}"
        if unit in CURRENCIES:
            return _money(amount, unit, language)
        by_digit = not found["decimals"] and (len(whole) > LONGEST_NUMBER or re.match("0.", whole))
        words = " ".join(num2words(part, lang=language) for part in (whole if by_digit else [amount]))
    except (NotImplementedError, ArithmeticError, LookupError, ValueError):  # unknown language, currency or size
        return found[0]
    return f"{words} {PERCENT.get(language[:2], '') if unit == '%' else found['scale'] or ''}"


def _money(amount: str, sign: str, language: str) -> str:
    """An amount of money, without the part of it that is zero."""
    said = num2words(amount, to="currency", currency=CURRENCIES[sign], lang=language, separator="|")
    whole, _, cents = said.replace(" sterling", "").partition("|")
    return cents if 0 < float(amount) < 1 else f"{whole} {cents}" if float(amount) % 1 else whole
