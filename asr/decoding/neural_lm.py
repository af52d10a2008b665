"""An LSTM language model over words, which judges whole sentences (Mikolov et al. 2010; Sundermeyer et al. 2012).

The frequent words share one softmax and the rare ones sit behind it in clusters (adaptive softmax, Grave et al. 2017,
arXiv 1609.04309). The same tables turn words to vectors at the input (Press & Wolf 2017; Baevski & Auli 2019), so that
a vocabulary of 100 000 words takes a few million weights. Here it runs, in NumPy; `asr.training.neural_lm_network`
defines it in PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from asr.decoding import network_file
from asr.decoding.network_file import Weights
from asr.schema import build, check_range
from asr.text.lstm import LSTMLayer

FILE = "neural_lm.safetensors"
END, UNKNOWN = 0, 1  # word numbers: the end of a sentence, which is also before its first word; any other word
CLUSTERS = (24, 5)  # the softmax of the frequent words holds 1/24 of all words, the first cluster those up to 1/5
NARROWING = 4  # each cluster's vectors are so many times narrower than those before


@dataclass(frozen=True)
class NeuralLMConfig:
    """The vocabulary, most frequent words first, and the sizes."""

    words: tuple[str, ...]
    embedding: int = 192
    hidden: int = 512
    layers: int = 1

    def __post_init__(self) -> None:
        check_range(self, 1, 8192, "embedding", "hidden", "layers")

    @property
    def bounds(self) -> list[int]:
        """Word numbers at which the clusters begin, and the number of all words."""
        size = len(self.words) + UNKNOWN + 1
        return [*(max(i, size // n) for i, n in enumerate(CLUSTERS, 1)), size]

    @cached_property
    def index(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, UNKNOWN + 1)}

    def numbers(self, sentence: Iterable[str]) -> list[int]:
        """Of a sentence's words, and of its end."""
        return [*(self.index.get(word, UNKNOWN) for word in sentence), END]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every weight."""
        gates, size, bounds = 4 * self.hidden, self.embedding, self.bounds
        found: dict[str, tuple[int, ...]] = {
            "project.weight": (size, self.hidden),
            "project.bias": (size,),
            "softmax.head.weight": (bounds[0] + len(CLUSTERS), size),
        }
        for layer in range(self.layers):
            inputs = self.hidden if layer else size
            found |= {f"rnn.weight_ih_l{layer}": (gates, inputs), f"rnn.weight_hh_l{layer}": (gates, self.hidden)}
            found |= {f"rnn.bias_{side}_l{layer}": (gates,) for side in ("ih", "hh")}
        for cluster in range(len(CLUSTERS)):
            width, words = size // NARROWING ** (cluster + 1), bounds[cluster + 1] - bounds[cluster]
            found |= {
                f"softmax.tail.{cluster}.0.weight": (width, size),
                f"softmax.tail.{cluster}.1.weight": (words, width),
            }
        return found


class NeuralLM:
    """A sentence's words → their probabilities. It never changes, so threads can share it.

    Raises ValueError where a weight's shape is not the config's.
    """

    def __init__(self, config: NeuralLMConfig, weights: Weights) -> None:
        network_file.check_shapes(weights, config.shapes())
        self.config, self.weights = config, weights
        self.layers = [
            LSTMLayer.of(
                [
                    (
                        weights[f"rnn.weight_ih_l{layer}"],
                        weights[f"rnn.weight_hh_l{layer}"],
                        weights[f"rnn.bias_ih_l{layer}"] + weights[f"rnn.bias_hh_l{layer}"],
                    )
                ]
            )
            for layer in range(config.layers)
        ]
        self.head = weights["softmax.head.weight"]  # words (rows) by vectors
        self.tails = [
            (weights[f"softmax.tail.{cluster}.0.weight"], weights[f"softmax.tail.{cluster}.1.weight"])
            for cluster in range(len(CLUSTERS))
        ]

    def score(self, sentences: Sequence[Sequence[str]]) -> list[list[float]]:
        """Natural-log probability of each word of each sentence, and of its end; nan for unknown words.

        Sentences that a search found share most of their beginnings: the network sees each beginning once.
        """
        beginnings: dict[tuple[int, int], int] = {(-1, END): 0}  # a beginning and the next word → a longer beginning
        asked: dict[tuple[int, int], int] = {}  # a beginning and the word that follows → where its score will stand
        rows = []
        for sentence in sentences:
            before, row = 0, []
            for word in self.config.numbers(sentence):
                row.append(asked.setdefault((before, word), len(asked)))
                if word != END:
                    before = beginnings.setdefault((before, word), len(beginnings))
            rows.append(row)
        contexts = self._contexts(*np.array(list(beginnings)).T)
        scores = self._scores(contexts, *np.array(list(asked)).reshape(-1, 2).T)
        return [scores[row].tolist() for row in rows]

    def _contexts(self, parents: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Beginnings, each after the one that it continues (-1: none) → what is known after each, (n, embedding)."""
        depth = np.zeros(len(parents), int)
        for i, parent in enumerate(parents[1:].tolist(), 1):
            depth[i] = depth[parent] + 1
        inputs = self._embed(words)
        for layer in self.layers:
            projected = layer.project(inputs[None])
            hidden, cell = np.zeros((2, 1, len(parents) + 1, layer.size), np.float32)  # the last row: before all words
            for level in range(depth.max() + 1):
                here = np.flatnonzero(depth == level)
                before = parents[here]
                hidden[:, here], cell[:, here] = layer.step(projected[:, here], hidden[:, before], cell[:, before])
            inputs = hidden[0, :-1]
        return inputs @ self.weights["project.weight"].T + self.weights["project.bias"]

    def _embed(self, words: np.ndarray) -> np.ndarray:
        """Word numbers (n,) → vectors (n, embedding): the rows by which the softmax tells the words apart."""
        bounds = self.config.bounds
        vectors = self.head[np.minimum(words, bounds[0] - 1)]
        for first, last, (narrow, wide) in zip(bounds, bounds[1:], self.tails, strict=False):
            inside = (words >= first) & (words < last)
            vectors[inside] = wide[words[inside] - first] @ narrow
        return vectors * np.float32(self.config.embedding**0.5)

    def _scores(self, contexts: np.ndarray, which: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Contexts (n, embedding) → the log probability of each word (m,) in the context that it stands in (m,)."""
        bounds = self.config.bounds
        cluster = np.searchsorted(bounds[:-1], words, side="right")  # 0: a frequent word
        column = np.where(cluster == 0, words, bounds[0] + cluster - 1)
        scores = chosen(contexts @ self.head.T, which, column)
        for number, (first, (narrow, wide)) in enumerate(zip(bounds, self.tails, strict=False), 1):
            inside = np.flatnonzero(cluster == number)
            if len(inside):
                used, place = np.unique(which[inside], return_inverse=True)
                scores[inside] += chosen(contexts[used] @ narrow.T @ wide.T, place, words[inside] - first)
        scores[words == UNKNOWN] = np.nan
        return scores

    def save(self, path: Path) -> None:
        """Half-precision weights, with words and sizes as metadata; the file appears whole or not at all."""
        network_file.save(path, self.weights, config=asdict(self.config))

    @classmethod
    def load(cls, path: Path) -> NeuralLM:
        """Read what `save` wrote. Raises CheckpointError if the file is missing, broken or of another shape."""

        def made(metadata: dict[str, Any], weights: Weights) -> NeuralLM:
            return cls(build(NeuralLMConfig, metadata["config"]), weights)

        return network_file.load(path, "neural language model", made)


def chosen(logits: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Log probabilities (k,) at these places of a softmax over each row (n, m), which is used up: it may be large."""
    found, largest = logits[rows, columns], logits.max(axis=1)
    logits -= largest[:, None]
    return found - (largest + np.log(np.exp(logits, out=logits).sum(axis=1)))[rows]
