"""Pronunciations of words that the dictionary lacks: hot words, names, new words.

A bidirectional LSTM reads the letters and CTC aligns the phonemes to them: Rao, Peng, Sak & Beaufays 2015,
"Grapheme-to-phoneme conversion using long short-term memory recurrent neural networks" (ICASSP). A word is never
streamed, so the LSTM is a plain bidirectional one. A letter gets several CTC frames, because it may sound as more than
one phoneme ("x" is K S): the last layer gives them all at once, so that the LSTM runs once a letter. Here it runs, in
NumPy; `asr.training.g2p` defines it in PyTorch and trains it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr.decoding import network_file
from asr.decoding.network_file import Weights
from asr.schema import build, check_range
from asr.text.lstm import LSTMLayer, bidirectional

FILE = "pronunciation.safetensors"
BLANK = 0  # CTC token; phoneme i is token i + 1
BEAM = 16  # prefixes kept a frame
LEAST_TOKEN = 1e-4  # less probable tokens of a frame do not extend a prefix
LEAST_VARIANT = 0.05  # less probable pronunciations, relative to the best, are left out
BATCH_WORDS = 128

Pronunciation = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """Errors over `words` words, each against the nearest of its listed pronunciations; nan for 0 words."""

    phoneme_error_rate: float
    word_error_rate: float
    words: int

    def __str__(self) -> str:
        return (
            f"{100 * self.phoneme_error_rate:.1f} % of the phonemes and {100 * self.word_error_rate:.1f} % of "
            f"{self.words} words held out are wrong."
        )


@dataclass(frozen=True)
class G2PConfig:
    """What a network reads and gives, and its sizes."""

    letters: str
    phonemes: tuple[str, ...]
    embedding: int = 32
    hidden: int = 128
    layers: int = 2
    frames_per_letter: int = 3

    def __post_init__(self) -> None:
        check_range(self, 1, 8192, "embedding", "hidden", "layers", "frames_per_letter")

    @property
    def tokens(self) -> int:
        return 1 + len(self.phonemes)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every weight."""
        gates, size = 4 * self.hidden, self.embedding
        found: dict[str, tuple[int, ...]] = {"embedding.weight": (len(self.letters), size)}
        for layer in range(self.layers):
            for end in (f"l{layer}", f"l{layer}_reverse"):
                found |= {f"rnn.weight_ih_{end}": (gates, size), f"rnn.weight_hh_{end}": (gates, self.hidden)}
                found |= {f"rnn.bias_{side}_{end}": (gates,) for side in ("ih", "hh")}
            size = 2 * self.hidden
        outputs = self.frames_per_letter * self.tokens
        return found | {"head.weight": (outputs, size), "head.bias": (outputs,)}

    def spell(self, word: str) -> list[int]:
        """Letter ids of `word` in lower case; [] if a character is not one of the letters."""
        ids = [self.letters.find(letter) for letter in word.lower()]
        return [] if -1 in ids else ids


class G2P:
    """Letters to phonemes. It never changes, so threads can share it.

    `held_out` are the errors on words that it was not trained on. Raises ValueError where a weight's shape is not the
    config's.
    """

    def __init__(self, config: G2PConfig, weights: Weights, held_out: ErrorRates | None = None) -> None:
        network_file.check_shapes(weights, config.shapes())
        self.config, self.weights, self.held_out = config, weights, held_out
        self.layers = []
        for layer in range(config.layers):
            ends = (f"l{layer}", f"l{layer}_reverse")
            self.layers.append(
                LSTMLayer.of(
                    (
                        weights[f"rnn.weight_ih_{end}"],
                        weights[f"rnn.weight_hh_{end}"],
                        weights[f"rnn.bias_ih_{end}"] + weights[f"rnn.bias_hh_{end}"],
                    )
                    for end in ends
                )
            )

    def probabilities(self, letters: Sequence[Sequence[int]]) -> np.ndarray:
        """Letter ids (words, length), words of one length, to probabilities (words, length × frames, tokens)."""
        hidden = self.weights["embedding.weight"][np.array(letters)]
        for layer in self.layers:
            hidden = bidirectional(layer, hidden)
        scores = hidden @ self.weights["head.weight"].T + self.weights["head.bias"]
        scores = scores.reshape(len(scores), -1, self.config.tokens)
        odds = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return odds / odds.sum(axis=-1, keepdims=True)

    def pronounce(self, word: str, n: int = 1) -> list[Pronunciation]:
        """Up to `n` different pronunciations, best first; [] for the empty word and for unknown characters."""
        return self.pronounce_all([word], n)[0]

    def pronounce_all(
        self, words: Sequence[str], n: int = 1, least: float = LEAST_VARIANT
    ) -> list[list[Pronunciation]]:
        """As `pronounce`, of many words; the network runs over batches of words of one length.

        Variants less probable than `least` times the best are left out: as words to listen for they would only do harm.
        """
        found: list[list[Pronunciation]] = [[] for _ in words]
        by_length: defaultdict[int, list[tuple[int, list[int]]]] = defaultdict(list)
        for place, word in enumerate(words):
            if ids := self.config.spell(word):
                by_length[len(ids)].append((place, ids))
        for same in by_length.values():
            for first in range(0, len(same), BATCH_WORDS):
                batch = same[first : first + BATCH_WORDS]
                each = self.probabilities([ids for _, ids in batch])
                for (place, _), frames in zip(batch, each, strict=True):
                    best = [each for each in prefix_beam_search(frames.tolist(), max(n, BEAM)) if each[0]][:n]
                    found[place] = [
                        tuple(self.config.phonemes[token - 1] for token in prefix)
                        for prefix, p in best
                        if p >= least * best[0][1]
                    ]
        return found

    def save(self, path: Path) -> None:
        """Half-precision weights, with config and held-out errors; the file appears whole or not at all."""
        errors = {"held_out": asdict(self.held_out)} if self.held_out else {}
        network_file.save(path, self.weights, config=asdict(self.config), **errors)

    @classmethod
    def load(cls, path: Path) -> G2P:
        """Read what `save` wrote. Raises CheckpointError if the file is missing, broken or of another shape."""

        def made(metadata: dict[str, Any], weights: Weights) -> G2P:
            errors = metadata.get("held_out")
            return cls(build(G2PConfig, metadata["config"]), weights, ErrorRates(**errors) if errors else None)

        return network_file.load(path, "letter-to-sound network", made)


def prefix_beam_search(frames: Sequence[Sequence[float]], beam: int) -> list[tuple[tuple[int, ...], float]]:
    """CTC prefix beam search (Graves 2012, Hannun et al. 2014) over probabilities (frames, tokens).

    Gives the `beam` best prefixes, best first, each with its probability relative to the best. Inside, a prefix has two
    probabilities: that of the paths which end in blank, and that of those which end in its last token.
    """
    prefixes: dict[tuple[int, ...], list[float]] = {(): [1.0, 0.0]}
    for frame in frames:
        likely = [token for token, p in enumerate(frame) if p > LEAST_TOKEN and token != BLANK]
        grown: defaultdict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for prefix, (in_blank, in_token) in prefixes.items():
            grown[prefix][0] += (in_blank + in_token) * frame[BLANK]
            if prefix:
                grown[prefix][1] += in_token * frame[prefix[-1]]
            for token in likely:
                repeats = prefix[-1:] == (token,)  # a token follows itself only across a blank
                grown[(*prefix, token)][1] += (in_blank if repeats else in_blank + in_token) * frame[token]
        best = sorted(grown.items(), key=lambda item: -sum(item[1]))[:beam]
        scale = sum(best[0][1])  # keeps long words from underflowing
        prefixes = {prefix: [in_blank / scale, in_token / scale] for prefix, (in_blank, in_token) in best}
    return [(prefix, in_blank + in_token) for prefix, (in_blank, in_token) in prefixes.items()]
