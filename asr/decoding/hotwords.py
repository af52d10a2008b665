"""Hot words: words and phrases that this conversation is likely to hold, known to the dictionary or not."""

from __future__ import annotations

from dataclasses import dataclass

from asr.errors import HotwordError
from asr.text.normalize import normalize

MOST = 30  # natural logarithm; a larger bonus would put the word everywhere
LONGEST_PHRASE = 100  # characters, with the bonus; spelling out a longer one can take minutes
MOST_PHRASES, MOST_DIGITS = 1000, 200  # of a list that comes from elsewhere; numbers take long


@dataclass(frozen=True)
class Hotword:
    """A word or phrase, lower case, and the natural-log bonus it earns as a whole (None: the checkpoint's default)."""

    phrase: tuple[str, ...]
    bonus: float | None = None

    @classmethod
    def parse(cls, text: str) -> Hotword:
        """`"rill"`, `"new york"`, `"rill:8"`. Raises HotwordError for a phrase that is empty or too long, and for a
        bonus that is no number."""
        if len(text) > LONGEST_PHRASE:
            raise HotwordError(f"Hot word '{text:.30}…' is longer than {LONGEST_PHRASE} characters: give shorter ones.")
        phrase, colon, number = text.rpartition(":")
        if not colon:
            phrase, number = text, ""
        words = tuple(normalize(phrase).split())
        if not words:
            raise HotwordError(f'Hot word \'{text}\' holds no word: write "word", "a phrase" or "word:8".')
        if not number:
            return cls(words)
        try:
            bonus = float(number)
        except ValueError:
            bonus = float("nan")
        if not 0 <= bonus <= MOST:
            raise HotwordError(f"Hot word '{text}': the bonus after the colon must be a number from 0 to {MOST}.")
        return cls(words, bonus)


def parse_list(phrases: object) -> tuple[Hotword, ...]:
    """A list of phrases that a client sent. Raises HotwordError where it is none, or larger than one person needs."""
    if not isinstance(phrases, list) or len(phrases) > MOST_PHRASES or not all(isinstance(p, str) for p in phrases):
        raise HotwordError(f"The phrases to expect must be a list of {MOST_PHRASES} texts at most.")
    if sum(map(str.isdigit, "".join(phrases))) > MOST_DIGITS:
        raise HotwordError(f"The hot words hold more than {MOST_DIGITS} digits: write numbers in words.")
    return tuple(map(Hotword.parse, phrases))
