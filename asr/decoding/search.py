"""Beam search over one utterance: emissions in, the best sentences out, at any time.

A hypothesis is a node of the lexicon tree, whether its last token is blank, an n-gram state and a state of the
automaton of hot phrases. Hypotheses that agree in all of it have the same future: the best stays ("recombination").
The loop over frames is compiled (`asr.decoding.kernels`); docs/architecture/search.md explains it.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asr.decoding import layout
from asr.decoding.compiling import library
from asr.decoding.layout import Options, table

FRAMES = 64  # whose hypotheses, each with a rival, the arena has room for at first


class SearchGraph(NamedTuple):
    """What a search walks, shared by any number of them: read-only arrays."""

    tree: layout.Tree
    hot: layout.Tree  # of hot words; may have no words
    ngram: layout.NGram
    numbers: np.ndarray  # (words,) int32: the n-gram's number of each word of the lexicon
    phrases: layout.Phrases


class _Rooms(threading.local):
    """Each thread's, kept for the searches to come, one for each width of the beam: fresh memory costs more than a
    frame does."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[tuple[int, ...], layout.Room, ctypes.Array[ctypes.c_int64]]] = {}

    def of(self, beam: int, alive: int, tokens: int, order: int) -> ctypes.Array[ctypes.c_int64]:
        sizes = (max(beam, alive), tokens, order)
        if beam not in self.kept or self.kept[beam][0] != sizes:
            room = layout.Room.of(beam, *sizes)
            self.kept[beam] = sizes, room, table(room)
        return self.kept[beam][2]


_rooms = _Rooms()


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
        tree, hot, ngram, numbers, phrases = graph
        self._tables = (table(tree), table(hot), table(ngram), table(layout.Numbers(numbers)), table(phrases))
        beam, arena = np.zeros(options.beam, layout.HYPOTHESIS), np.zeros(2 * FRAMES * options.beam, layout.ENTRY)
        beam[0]["state"], beam[0]["blank"] = begin, 1
        arena[0]["label"] = -1
        self._become(
            layout.State(np.array([tuple(options)], layout.OPTIONS), beam, arena, np.ones(2, np.int64), np.zeros(1))
        )

    def accept(self, emissions: np.ndarray) -> None:
        """The next frames (F, V), natural log."""
        scores = np.ascontiguousarray(emissions - self.divided, dtype=np.float32)
        silent = scores[:, [self.options.blank, self.options.boundary]]
        self.silence += float(silent.max(axis=1).sum(dtype=np.float64))
        self.frames += len(scores)
        room = _rooms.of(self.options.beam, len(self), scores.shape[1], len(self.graph.ngram.base))
        heard = table(layout.Emissions(scores))
        done = 0
        while (done := library().advance(heard, *self._tables, self._handed, room, done)) < len(scores):
            self._compact()
            arena = self._state.arena
            if 2 * (self._state.alive[1] + 2 * self.options.beam) > len(arena):
                self._become(self._state._replace(arena=np.concatenate([arena, np.zeros_like(arena)])))

    def best(self) -> Path:
        """The best sentence so far, its last word complete where that can be."""
        return self.nbest(1)[0]

    def nbest(self, n: int) -> list[Path]:
        """At most `n` sentences of different words, best first; those within `options.margin` of the best."""
        paths = layout.Paths.of(n, self.frames, len(self), len(self.graph.ngram.base))
        _, _, ngram, _, phrases = self._tables
        count = library().best_paths(ngram, phrases, self._handed, table(paths), self.frames, n)
        rows = paths.found[:count]
        found = zip(paths.scores[:count].tolist(), paths.labels[rows], paths.tokens[rows], strict=True)
        return [Path(*each) for each in found]

    def evidence(self, path: Path) -> float:
        """How far a path beats silence, natural log."""
        return path.score - self.silence

    def copy(self, beam: int) -> Search:
        """Another search that has heard the same, and goes on by itself with at most `beam` hypotheses."""
        new = object.__new__(Search)
        new.__dict__.update(self.__dict__)
        new.options = self.options._replace(beam=min(beam, self.options.beam))
        self._compact()
        options, hypotheses, arena, alive, offset = self._state
        used = int(alive[1])
        entries = np.empty_like(arena)
        entries[:used] = arena[:used]
        options = options.copy()
        options["beam"] = new.options.beam
        new._become(layout.State(options, hypotheses.copy(), entries, alive.copy(), offset.copy()))
        return new

    def _become(self, state: layout.State) -> None:
        self._state, self._handed = state, table(state)

    def _compact(self) -> None:
        index = layout.Index(np.empty(int(self._state.alive[1]), np.int32))
        library().compact(self._handed, table(index))

    def __len__(self) -> int:
        """How many hypotheses are alive."""
        return int(self._state.alive[0])
