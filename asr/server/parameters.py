"""What clients of several protocols ask for in the same way: a model, a language, words to expect, probabilities."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from asr.errors import RillError
from asr.inference.recognizer import Recognizer
from asr.text.normalize import normalize
from asr.text.results import Word

# Names that OpenAI's clients have built in; those that stream must use one of the GPT ones.
MODEL_ALIASES = (
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
)
LANGUAGE_NAMES = {"en": "english"}  # by ISO 639-1 code, as OpenAI writes them; other codes stay as they are
MAX_NAME_LENGTH = 100  # characters of what a client names, in errors and in the log
MAX_PHRASE_WORDS = 4  # of a prompt's part that is expected as a whole; longer ones are prose
MIN_CONFIDENCE = 1e-3  # whose logarithm is taken
MAX_ALTERNATIVES = 10  # sentences of one utterance: as many as the second pass judges


class UnknownModel(RillError):
    """The server has no model of this name."""


def check_model(recognizer: Recognizer, name: str) -> None:
    """Raises UnknownModel."""
    known = recognizer.engine.checkpoint.config.name
    if name not in (known, *MODEL_ALIASES):
        raise UnknownModel(f"There is no model '{name:.{MAX_NAME_LENGTH}}' here: ask for '{known}'.")


def check_language(recognizer: Recognizer, language: object) -> None:
    """The model's own language, as code or name, or none. Raises RillError."""
    own = recognizer.engine.checkpoint.config.language
    if language and str(language).lower().partition("-")[0] not in (own, language_name(own)):
        raise RillError(f"This model understands '{own}' only, not '{language!s:.{MAX_NAME_LENGTH}}'.")


def language_name(language: str) -> str:
    return LANGUAGE_NAMES.get(language, language)


def alternatives_wanted(value: object, name: str) -> int:
    """How many sentences a client gets at most of each utterance: what it wants, or as many as there are. Raises
    RillError."""
    text = str(value)
    if not text.isdecimal():
        raise RillError(f"'{name}' must be a whole number, not '{text:.20}'.")
    return min(int(text[:10]), MAX_ALTERNATIVES)


def prompt_phrases(prompt: object) -> list[str]:
    """The words and short phrases of a prompt, which is a list of keywords; prose between them is left out."""
    parts = re.split(r"[,;:.!?\n]+", prompt) if isinstance(prompt, str) else []
    return [part for part in parts if 1 <= len(normalize(part).split()) <= MAX_PHRASE_WORDS]


def logprobs(words: Sequence[Word]) -> list[dict[str, Any]]:
    """The natural logarithm of each word's confidence, as OpenAI writes tokens."""
    tokens = [f" {word.display}" if i else word.display for i, word in enumerate(words)]
    return [
        {"token": token, "bytes": list(token.encode()), "logprob": round(log_confidence(word), 4)}
        for token, word in zip(tokens, words, strict=True)
    ]


def log_confidence(word: Word) -> float:
    return math.log(max(word.confidence, MIN_CONFIDENCE))
