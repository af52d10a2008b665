"""Beam search over one utterance: emissions in, the best sentences out, at any time.

A hypothesis is a node of the lexicon tree, whether its last token is blank, an n-gram state and a state of the
automaton of hot phrases. Hypotheses that agree in all of it have the same future: the best stays ("recombination").
The loop over frames is compiled (`asr.decoding.kernels`); docs/architecture/search.md explains it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from threading import Timer
from typing import NamedTuple

import numpy as np

from asr.decoding import kernels, ngram, storage
from asr.decoding.kernels import Options
from asr.decoding.phrases import PhraseAutomaton
from asr.decoding.tree import prefix_tree

COMPILING_S = 1.0  # after which somebody who waits is told why
FRAMES = 64  # whose hypotheses, each with a rival, the arena has room for at first


class SearchGraph(NamedTuple):
    """What a search walks, shared by any number of them: read-only arrays."""

    tree: kernels.Tree
    hot: kernels.Tree  # of hot words; may have no words
    ngram: kernels.NGram
    numbers: np.ndarray  # (words,) int32: the n-gram's number of each word of the lexicon
    phrases: kernels.Phrases


def compiled_anew() -> bool:
    """Whether this process has had to compile the search."""
    return bool(kernels.advance.stats.cache_misses or kernels.score.stats.cache_misses)


@lru_cache(maxsize=1)
def prepare() -> None:
    """Compile the search, or load what an earlier process compiled; whoever waits for long is told why."""

    def announce() -> None:
        if compiled_anew():
            logging.getLogger(__name__).warning("Compiling the search for this processor, once: some 20 seconds.")

    timer = Timer(COMPILING_S, announce)
    timer.daemon = True
    timer.start()
    try:
        model = ngram.NGram(
            ngram.arrays_of(
                [ngram.UNKNOWN, ngram.BEGIN, ngram.END],
                [(np.arange(3, dtype=np.int32)[:, None], *np.zeros((2, 3), np.float32))],
            )
        )
        lexicon = prefix_tree([(0, (2, 1), 0.0)])
        numbers = storage.frozen({"numbers": model.numbers([ngram.UNKNOWN])})["numbers"]
        graph = SearchGraph(lexicon, prefix_tree([]), model.arrays, numbers, PhraseAutomaton([]).arrays)
        options = Options(2, 3, 1.0, 0.0, 1.0, 0.0, 0.0, 0, 1, model.unknown, model.end)
        search = Search(graph, options, model.begin, np.zeros(3, np.float32))
        search.accept(np.zeros((1, 3), np.float32))
        search.copy(1).best()
        model.scores(model.numbers([]))
    finally:
        timer.cancel()


@dataclass(frozen=True)
class Path:
    """A sentence as it was found: score (natural log); (F,) numbers of words at the frames where they end, else -1; and
    (F,) tokens."""

    score: float
    labels: np.ndarray
    tokens: np.ndarray


class Search:
    """`begin` is the n-gram's state before the first word; `divided` (V,) is subtracted from all emissions."""

    def __init__(self, graph: SearchGraph, options: Options, begin: int, divided: np.ndarray) -> None:
        self.graph, self.options, self.divided = graph, options, divided
        self.frames = 0
        self.silence = 0.0  # score of the path without a word
        self._beam = np.zeros(options.beam, kernels.HYPOTHESIS)
        self._beam[0]["state"], self._beam[0]["blank"] = begin, 1
        self._arena = np.zeros(2 * FRAMES * options.beam, kernels.ENTRY)
        self._arena[0]["label"] = -1
        self._counts = kernels.Counts(np.ones(2, np.int64), np.zeros(1))

    def accept(self, emissions: np.ndarray) -> None:
        """The next frames (F, V), natural log."""
        scores = np.ascontiguousarray(emissions - self.divided, dtype=np.float32)
        silent = scores[:, [self.options.blank, self.options.boundary]]
        self.silence += float(silent.max(axis=1).sum(dtype=np.float64))
        self.frames += len(scores)
        done = 0
        while (done := kernels.advance(scores, done, *self.graph, self.options, *self._state)) < len(scores):
            kernels.compact(*self._state)
            if 2 * (self._counts.alive[1] + 2 * self.options.beam) > len(self._arena):
                self._arena = np.concatenate([self._arena, np.zeros_like(self._arena)])

    def best(self) -> Path:
        """The best sentence so far, its last word complete where that can be."""
        return self.nbest(1)[0]

    def nbest(self, n: int) -> list[Path]:
        """At most `n` sentences of different words, best first; those within `options.margin` of the best."""
        found = kernels.best_paths(self.frames, n, self.graph.ngram, self.graph.phrases, self.options, *self._state)
        return [Path(float(score), labels, tokens) for score, labels, tokens in zip(*found, strict=True)]

    def evidence(self, path: Path) -> float:
        """How far a path beats silence, natural log."""
        return path.score - self.silence

    def copy(self, beam: int) -> Search:
        """Another search that has heard the same, and goes on by itself with at most `beam` hypotheses."""
        new = object.__new__(Search)
        new.__dict__.update(self.__dict__)
        new.options = self.options._replace(beam=min(beam, self.options.beam))
        kernels.compact(*self._state)
        used = int(self._counts.alive[1])
        new._beam, new._arena = self._beam.copy(), np.empty_like(self._arena)
        new._arena[:used] = self._arena[:used]
        new._counts = kernels.Counts(*(each.copy() for each in self._counts))
        return new

    @property
    def _state(self) -> tuple[np.ndarray, np.ndarray, kernels.Counts]:
        return self._beam, self._arena, self._counts

    def __len__(self) -> int:
        """How many hypotheses are alive."""
        return int(self._counts.alive[0])
