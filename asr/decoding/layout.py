"""What the search's compiled loops (`kernels`) work on, and how Python hands it over.

A loop takes tables of numbers: of each array its address, its rows and its columns, in the order of the tuples below.
So a process that finds the loops compiled needs nothing of the compiler.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple, get_type_hints

import numpy as np

ROOT = 0  # of the lexicon tree, of the n-gram trie (the empty context) and of the automaton of phrases
SAMPLED = 64  # every so many-th set bit, and clear bit, of the trie's shape has its place noted
CACHE_BITS = 13  # 2 to the power of it are the language model's scores that are remembered
HISTORY_BITS = 10  # and the states whose words are
LEVELS = 512  # rows of the histogram of scores; half of them are for those above the first guess of the best

# A hypothesis: score (of the best: 0), node of the lexicon tree, state of the n-gram and of the automaton, the arena's
# entry of its last frame, whether that is a blank, and a hash of all its words.
HYPOTHESIS = np.dtype(
    [
        ("score", "f4"),
        ("node", "i4"),
        ("state", "i4"),
        ("phrase", "i4"),
        ("entry", "i4"),
        ("blank", "i4"),
        ("past", "u8"),
    ],
    align=True,
)
# An entry of the arena is one frame of a path: the entry of the frame before, the word that ends here (or -1), the
# token. Where paths of other words met and the best went on, `other` is an entry of another (or 0), and its `loss` how
# far behind the best it was. Entry 0 is the beginning.
ENTRY = np.dtype([("before", "i4"), ("other", "i4"), ("label", "i4"), ("token", "i4"), ("loss", "f4")], align=True)
# What a hypothesis may become in a frame; `rival` is the first in a list of those that a better one has overtaken.
CANDIDATE = np.dtype(
    [
        ("score", "f4"),
        ("node", "i4"),
        ("state", "i4"),
        ("phrase", "i4"),
        ("blank", "i4"),
        ("source", "i4"),
        ("label", "i4"),
        ("token", "i4"),
        ("rival", "i4"),
        ("past", "u8"),
    ],
    align=True,
)
RIVAL = np.dtype([("score", "f4"), ("source", "i4"), ("label", "i4"), ("next", "i4"), ("past", "u8")], align=True)


class Tree(NamedTuple):
    """A lexicon's prefix tree (`asr.decoding.tree` describes the arrays)."""

    token: np.ndarray
    ahead: np.ndarray
    first: np.ndarray
    ends: np.ndarray
    labels: np.ndarray


class NGram(NamedTuple):
    """An n-gram trie with the last word of each n-gram at its root (`asr.decoding.ngram` describes the arrays)."""

    base: np.ndarray
    unigrams: np.ndarray
    probabilities: np.ndarray
    back_offs: np.ndarray
    probability_table: np.ndarray
    back_off_table: np.ndarray
    words: np.ndarray
    first: np.ndarray
    shape: np.ndarray
    zeros: np.ndarray
    ones: np.ndarray


class Phrases(NamedTuple):
    """The automaton of hot phrases (`asr.decoding.phrases`); state 0 is in none."""

    first: np.ndarray  # (states + 1,) int32: of a state's transitions
    word: np.ndarray  # (transitions,) int32, ascending for each state
    target: np.ndarray  # (transitions,) int32
    fallback: np.ndarray  # (states,) int32
    earned: np.ndarray  # (states,) float32: by a phrase that ends here
    lent: np.ndarray  # (states,) float32: to a phrase that goes on


class Options(NamedTuple):
    beam: int
    tokens: int  # of a frame, at most, that a path may take
    threshold: float  # how far behind the best a path is given up
    margin: float  # how far behind the best a sentence may be and be found by `best_paths`
    lm_weight: float
    word_score: float
    floor: float  # log10 score of words that the language model does not know, at least
    blank: int
    boundary: int
    unknown: int  # the n-gram's number for words that it does not know
    end: int  # and for the end of a sentence


OPTIONS = np.dtype([(name, {float: "f8", int: "i8"}[kind]) for name, kind in get_type_hints(Options).items()])


class State(NamedTuple):
    """A search at some frame."""

    options: np.ndarray  # (1,) OPTIONS
    beam: np.ndarray  # HYPOTHESIS
    arena: np.ndarray  # ENTRY
    alive: np.ndarray  # (2,) int64: hypotheses, entries of the arena
    offset: np.ndarray  # (1,) float64: score of the best hypothesis


class Room(NamedTuple):
    """In which `advance` works; it finds nothing there."""

    candidates: np.ndarray  # CANDIDATE
    rivals: np.ndarray  # (beam,) RIVAL
    table: np.ndarray  # (a power of 2, 2) int32
    made: np.ndarray  # (2,) int64
    levels: np.ndarray  # (LEVELS + 2,) int64
    survivors: np.ndarray  # (beam,) HYPOTHESIS
    work: np.ndarray  # float32: as many as candidates, and as tokens
    cached_key: np.ndarray  # (2^CACHE_BITS,) int64
    cached_state: np.ndarray  # (2^CACHE_BITS,) int32
    cached_score: np.ndarray  # (2^CACHE_BITS,) float32
    known: np.ndarray  # (2^HISTORY_BITS,) int32
    length: np.ndarray  # (2^HISTORY_BITS,) int32
    context: np.ndarray  # (order · 2^HISTORY_BITS,) int64
    back_off: np.ndarray  # (order · 2^HISTORY_BITS,) float32

    @classmethod
    def of(cls, beam: int, hypotheses: int, tokens: int, order: int) -> Room:
        """For so many hypotheses, the beam's or more."""
        most = 4 * hypotheses + 2048
        return cls(
            np.empty(most + 1, CANDIDATE),
            np.empty(beam, RIVAL),
            np.empty((1 << bits_of(2 * most), 2), np.int32),
            np.empty(2, np.int64),
            np.empty(LEVELS + 2, np.int64),
            np.empty(beam, HYPOTHESIS),
            np.empty(max(most, tokens), np.float32),
            np.empty(1 << CACHE_BITS, np.int64),
            np.empty(1 << CACHE_BITS, np.int32),
            np.empty(1 << CACHE_BITS, np.float32),
            np.empty(1 << HISTORY_BITS, np.int32),
            np.empty(1 << HISTORY_BITS, np.int32),
            np.empty(order << HISTORY_BITS, np.int64),
            np.empty(order << HISTORY_BITS, np.float32),
        )


class Paths(NamedTuple):
    """What `best_paths` finds, and its room."""

    scores: np.ndarray  # (n,) float64
    found: np.ndarray  # (n,) int32: rows of labels and tokens
    labels: np.ndarray  # (reads, frames) int32
    tokens: np.ndarray  # (reads, frames) int32
    past: np.ndarray  # (reads,) uint64
    total: np.ndarray  # (waiting,) float32, and so on: paths that wait to be read
    entry: np.ndarray  # int32
    parent: np.ndarray  # int32
    frame: np.ndarray  # int32
    context: np.ndarray  # (order,) int64
    back_off: np.ndarray  # (order,) float32

    @classmethod
    def of(cls, n: int, frames: int, alive: int, order: int) -> Paths:
        reads, waiting = 1 if n == 1 else 4 * n, alive + 64 * n
        return cls(
            np.zeros(n),
            np.zeros(n, np.int32),
            np.full((reads, frames), -1, np.int32),
            np.zeros((reads, frames), np.int32),
            np.zeros(reads, np.uint64),
            np.empty(waiting, np.float32),
            np.empty(waiting, np.int32),
            np.empty(waiting, np.int32),
            np.empty(waiting, np.int32),
            np.zeros(order, np.int64),
            np.zeros(order, np.float32),
        )


class Emissions(NamedTuple):
    scores: np.ndarray  # (frames, tokens) float32


class Numbers(NamedTuple):
    numbers: np.ndarray  # (words,) int32: the n-gram's of each word of the lexicon


class Index(NamedTuple):
    """The room of `compact`."""

    entries: np.ndarray  # (used entries of the arena,) int32


class Sentence(NamedTuple):
    """What `score_sentence` reads and writes, and its room."""

    words: np.ndarray  # (n,) int32
    scores: np.ndarray  # (n + 1,) float32
    context: np.ndarray  # (order,) int64
    back_off: np.ndarray  # (order,) float32

    @classmethod
    def of(cls, words: np.ndarray, order: int) -> Sentence:
        return cls(words, np.empty(len(words) + 1, np.float32), np.zeros(order, np.int64), np.zeros(order, np.float32))


class Bonus(NamedTuple):
    earned: np.ndarray  # (1,) float32


# Of the arrays of each tuple: their values' type, and how many dimensions they have.
U1, I4, I8, U4, U8, F4, F8 = (np.dtype(name) for name in ("u1", "i4", "i8", "u4", "u8", "f4", "f8"))
TYPES: dict[type, tuple[tuple[np.dtype[Any], int], ...]] = {
    Tree: ((U1, 1), (F4, 1), (I4, 1), (I4, 1), (I4, 1)),
    NGram: (
        (I8, 1),
        (F4, 2),
        (U1, 1),
        (U1, 1),
        (F4, 2),
        (F4, 2),
        (U8, 1),
        (U4, 1),
        (U8, 1),
        (U4, 1),
        (U4, 1),
    ),
    Phrases: ((I4, 1), (I4, 1), (I4, 1), (I4, 1), (F4, 1), (F4, 1)),
    State: ((OPTIONS, 1), (HYPOTHESIS, 1), (ENTRY, 1), (I8, 1), (F8, 1)),
    Room: (
        (CANDIDATE, 1),
        (RIVAL, 1),
        (I4, 2),
        (I8, 1),
        (I8, 1),
        (HYPOTHESIS, 1),
        (F4, 1),
        (I8, 1),
        (I4, 1),
        (F4, 1),
        (I4, 1),
        (I4, 1),
        (I8, 1),
        (F4, 1),
    ),
    Paths: (
        (F8, 1),
        (I4, 1),
        (I4, 2),
        (I4, 2),
        (U8, 1),
        (F4, 1),
        (I4, 1),
        (I4, 1),
        (I4, 1),
        (I8, 1),
        (F4, 1),
    ),
    Emissions: ((F4, 2),),
    Numbers: ((I4, 1),),
    Index: ((I4, 1),),
    Sentence: ((I4, 1), (F4, 1), (I8, 1), (F4, 1)),
    Bonus: ((F4, 1),),
}

# Of the compiled functions: how many tables they take, and how many numbers behind them. All return a number.
SIGNATURES = {
    "advance": (8, 1),
    "compact": (2, 0),
    "best_paths": (4, 2),
    "score_sentence": (2, 2),
    "follow": (2, 2),
}


def table(arrays: tuple[np.ndarray, ...]) -> ctypes.Array[ctypes.c_int64]:
    """Of one of the tuples, whose arrays the caller has to keep alive. Raises TypeError where one is not as in `TYPES`:
    compiled code would read something else."""
    numbers: list[int] = []
    for array, (dtype, dimensions) in zip(arrays, TYPES[type(arrays)], strict=True):
        shape = array.shape
        if array.dtype != dtype or len(shape) != dimensions or not array.flags.c_contiguous:
            raise TypeError(f"{type(arrays).__name__} has an array {array.dtype}{shape} instead of {dtype}.")
        numbers += (array.ctypes.data, shape[0], shape[-1])
    return (ctypes.c_int64 * len(numbers))(*numbers)


def bits_of(size: int) -> int:
    """How many bits a number below `size` takes."""
    return max(1, (size - 1).bit_length())
