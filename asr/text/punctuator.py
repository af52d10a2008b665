"""Punctuation and capitals for recognized words, by a small recurrent tagger; NumPy only.

A bidirectional LSTM reads the words, each as the vector of the word (of the frequent ones) plus the mean of its
character n-grams' vectors (Bojanowski et al. 2017, "Enriching word vectors with subword information"), and the pause
after it. Two linear layers give the mark that follows the word and its case. `asr.training.punctuation` trains it.

    punctuator = Punctuator.load(path)
    punctuator.punctuate("and so my fellow americans ask not")     # "And so, my fellow Americans, ask not"
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from asr.errors import CheckpointError
from asr.text.labels import CAPITAL, CLITIC, MIXED, NONE, SENTENCE_ENDS, UPPER
from asr.text.lstm import LSTMLayer, bidirectional

FILE = "punctuation.safetensors"  # of a checkpoint
BREAK, UNKNOWN = 0, 1  # rows of the word vectors before those of the words: between texts, for words that have none
GRAMS = (3, 4)  # characters of an n-gram
LONGEST_PAUSE_S = 3.0  # of which the tagger hears
WINDOW, OVERLAP = 256, 32  # words from one window to the next; on either side of them the tagger sees so many more
WINDOWS = 8  # that are read at once; more of them do not fit into the cache
MATRIX_BITS = 8
VECTORS = ("words", "pieces")  # matrices of which a word needs a few rows: they stay in 8 bits
# How much more likely than a stretch of training text the words end with a sentence: a recording or a session does
# mostly; an utterance that was cut where somebody paused, or nowhere, may go on.
END_ODDS, CUT_ODDS = 10.0, 0.7


class Tag(NamedTuple):
    """The mark after a word and the word's case: constants of `asr.text.labels`."""

    mark: int
    case: int


@dataclass(frozen=True)
class PunctuatorConfig:
    """What a tagger's file says of it besides its weights."""

    language: str
    words: list[str]  # that have vectors of their own
    width: int  # of a vector
    buckets: int  # n-grams share so many vectors
    hidden: int  # of each direction
    layers: int
    marks: list[str] = field(default_factory=lambda: ["", ",", ".", "?"])  # as written
    forms: dict[str, str] = field(default_factory=dict)  # words with capitals inside, as written
    abbreviations: dict[str, str] = field(default_factory=dict)  # words with a period of their own, as written
    training: dict[str, Any] = field(default_factory=dict)


def grams(word: str, buckets: int) -> list[int]:
    """The rows of a word's character n-grams; word boundaries count as characters."""
    marked = f"<{word}>"
    return [
        zlib.crc32(marked[at : at + size].encode()) % buckets
        for size in range(GRAMS[0], GRAMS[1] + 1)
        for at in range(max(1, len(marked) - size + 1))
    ]


def pause_input(seconds: np.ndarray) -> np.ndarray:
    """Pauses in seconds, (…), NaN where not known → inputs (…, 2): whether it is known, and how long on a log scale."""
    known = ~np.isnan(seconds)
    length = np.log1p(10 * np.clip(np.nan_to_num(seconds), 0, LONGEST_PAUSE_S))
    return np.stack([known, length], axis=-1).astype(np.float32)


def quantize(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A float matrix (rows, columns) → 8-bit integers and the scale of each row (rows, 1)."""
    scale = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), 1e-8) / (2 ** (MATRIX_BITS - 1) - 1)
    return np.round(matrix / scale).astype(np.int8), scale.astype(np.float32)


class Punctuator:
    """A tagger and its spelling. It never changes, so threads can share it."""

    def __init__(self, config: PunctuatorConfig, weights: Mapping[str, np.ndarray]) -> None:
        """`weights` are float32, with the names and layout of PyTorch's `nn.LSTM`: gates input, forget, cell, output.
        Those of `VECTORS` may be as `quantize` gives them, with scales. Raises ValueError where their shapes are not
        the config's."""
        self.config = config
        self._rows = {word: row for row, word in enumerate(config.words, 2)}
        self._vectors = {name: (weights[name], weights.get(f"{name}.scale")) for name in VECTORS}
        self._layers = []
        size, hidden = config.width + 2, config.hidden
        shapes = {
            "words": (len(self._rows) + 2, config.width),
            "pieces": (config.buckets, config.width),
            "marks": (len(config.marks), 2 * hidden),
            "cases": (MIXED + 1, 2 * hidden),
        }
        for layer in range(config.layers):
            for direction in ("forward", "backward"):
                shapes |= {
                    f"{layer}.{direction}.input": (4 * hidden, size),
                    f"{layer}.{direction}.state": (4 * hidden, hidden),
                }
            size = 2 * hidden
        for name, shape in shapes.items():
            if weights[name].shape != shape:
                raise ValueError(f"tensor '{name}' has shape {weights[name].shape} instead of {shape}")
        for layer in range(config.layers):
            each = (f"{layer}.{direction}" for direction in ("forward", "backward"))
            self._layers.append(
                LSTMLayer.of((weights[f"{one}.input"], weights[f"{one}.state"], weights[f"{one}.bias"]) for one in each)
            )
        self._head = np.concatenate([weights["marks"], weights["cases"]]).T
        self._head_bias = np.concatenate([weights["marks.bias"], weights["cases.bias"]])
        self._vector = lru_cache(maxsize=8192)(self._vector_of)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Punctuator:
        """Read what `save` wrote. Raises CheckpointError if the file is missing, broken or of another shape."""
        try:
            return cls(*read(path, kept=VECTORS))
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{path} is not a usable tagger of punctuation ({' '.join(str(error).split())}): "
                "download the checkpoint again, or train one: asr punctuate --train."
            ) from error

    def tag(self, words: Sequence[str], pauses: Sequence[float] | np.ndarray | None = None) -> list[Tag]:
        """A tag for each word. `words` are raw: lower case, no punctuation; `pauses` are the seconds of silence after
        each word, NaN where that is not known: after the last one of a recording, say. A long text is read in windows,
        several at a time."""
        if not words:
            return []
        silence = np.full(len(words), np.nan) if pauses is None else np.asarray(pauses, dtype=np.float64)
        size = min(len(words), WINDOW + 2 * OVERLAP)
        firsts = [*range(0, len(words) - size, WINDOW), len(words) - size]
        scores = np.concatenate(
            [
                self._scores(
                    [words[first : first + size] for first in firsts[at : at + WINDOWS]],
                    np.stack([silence[first : first + size] for first in firsts[at : at + WINDOWS]]),
                )
                for at in range(0, len(firsts), WINDOWS)
            ]
        )
        ends = [*(first + OVERLAP for first in firsts[1:]), len(words)]  # up to which a window's scores count
        begins = [0, *ends[:-1]]
        joined = np.concatenate(
            [
                each[begin - first : end - first]
                for each, first, begin, end in zip(scores, firsts, begins, ends, strict=True)
            ]
        )
        joined[-1, SENTENCE_ENDS] += np.log(END_ODDS if np.isnan(silence[-1]) else CUT_ODDS)
        kinds = len(self.config.marks)
        return list(map(Tag, joined[:, :kinds].argmax(1).tolist(), joined[:, kinds:].argmax(1).tolist()))

    def scores(self, words: Sequence[str], pauses: np.ndarray) -> np.ndarray:
        """Unnormalized log-probabilities (words, marks + cases) of a text that is read at once."""
        return self._scores([words], pauses[None])[0]

    def _scores(self, texts: Sequence[Sequence[str]], pauses: np.ndarray) -> np.ndarray:
        """Texts of T words each, and pauses (N, T) → (N, T, marks + cases)."""
        boundary = self._rows_of("words", [BREAK])[0]
        vectors = np.stack([np.stack([boundary, *map(self._vector, words), boundary]) for words in texts])
        edges = ((0, 0), (1, 1))
        hidden = np.concatenate([vectors, pause_input(np.pad(pauses, edges, constant_values=np.nan))], axis=2)
        for layer in self._layers:
            hidden = bidirectional(layer, hidden)
        return hidden[:, 1:-1] @ self._head + self._head_bias

    def _vector_of(self, word: str) -> np.ndarray:
        (whole,) = self._rows_of("words", [self._rows.get(word, UNKNOWN)])
        return whole + self._rows_of("pieces", grams(word, self.config.buckets)).mean(0)

    def _rows_of(self, name: str, rows: Sequence[int]) -> np.ndarray:
        """Rows of one of the `VECTORS` in float32."""
        values, scale = self._vectors[name]
        return values[rows] if scale is None else values[rows] * scale[rows]

    def write(self, word: str, tag: Tag, first: bool = False) -> str:
        """A word as it is written, its mark included; `first` in its sentence, it begins with a capital."""
        config = self.config
        if tag.mark == NONE and word in config.abbreviations:
            written = config.abbreviations[word]
        elif tag.case == MIXED and word in config.forms:
            written = config.forms[word]
        elif tag.case == UPPER:
            ending = CLITIC.search(word)
            stem = word[: ending.start()] if ending else word
            written = stem.upper() + word[len(stem) :]
        else:
            written = capitalize(word) if tag.case in (CAPITAL, MIXED) else word
        if first and tag.case != MIXED:
            written = capitalize(written)
        return written + config.marks[tag.mark]

    def punctuate(self, text: str) -> str:
        """Plain words, with spaces between them, as sentences."""
        words = text.split()
        written, first = [], True
        for word, tag in zip(words, self.tag(words), strict=True):
            written.append(self.write(word, tag, first))
            first = tag.mark in SENTENCE_ENDS
        return " ".join(written)


def save(path: Path, config: PunctuatorConfig, weights: Mapping[str, np.ndarray]) -> None:
    """Write a file for `Punctuator.load`: matrices in 8 bits, biases as they are."""
    stored: dict[str, np.ndarray] = {}
    for name, values in weights.items():
        if values.ndim == 2:
            stored[name], stored[f"{name}.scale"] = quantize(values)
        else:
            stored[name] = values.astype(np.float32)
    save_file(stored, path, {"config": json.dumps(asdict(config), ensure_ascii=False)})


def read(path: str | os.PathLike[str], kept: Sequence[str] = ()) -> tuple[PunctuatorConfig, dict[str, np.ndarray]]:
    """What `save` wrote, in floats again, but for the matrices `kept` in 8 bits. `Punctuator.load` says what can be
    wrong with it."""
    with safe_open(path, framework="np") as file:
        config = PunctuatorConfig(**json.loads((file.metadata() or {})["config"]))
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return config, {
        name: values * stored[f"{name}.scale"] if values.dtype == np.int8 and name not in kept else values
        for name, values in stored.items()
    }


def capitalize(word: str) -> str:
    """The word with a capital at its beginning; the rest stays."""
    return word[:1].upper() + word[1:]
