"""How sure a word is: evidence in the emissions under its tokens, through a logistic regression fitted by `asr tune`.

Features of this kind, and the regression, as in the confidence literature (Jiang 2005, "Confidence measures for speech
recognition: a survey").
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.tokens import TokenSet


@dataclass(frozen=True)
class Evidence:
    """A word in its utterance: emissions (F, V), the decoder's path (F,) of tokens, its first and last spoken frame."""

    emissions: np.ndarray
    path: np.ndarray
    first: int
    last: int


class Confidence:
    """Evidence → probability that the word is right, with the weights of a checkpoint (none: a plain mean)."""

    def __init__(self, tokens: TokenSet, weights: Sequence[float]) -> None:
        self.blank, self.boundary = tokens.blank_index, tokens.boundary_index
        self.weights = np.asarray(weights)

    def features(self, evidence: Evidence) -> np.ndarray:
        """(5,): mean and worst log-posterior of the word's tokens at their peaks, what the path loses a frame against
        the best tokens, log of the number of tokens, and frames a token."""
        frames = slice(evidence.first, evidence.last + 1)
        path = evidence.path[frames]
        logp = evidence.emissions[frames]
        chosen = np.take_along_axis(logp, path[:, None], axis=1)[:, 0]
        runs = np.flatnonzero(np.diff(path, prepend=-1))
        spoken = (path[runs] != self.blank) & (path[runs] != self.boundary)
        peaks = np.maximum.reduceat(chosen, runs)[spoken]
        loss = np.minimum(logp.max(axis=1) - chosen, 8.0).mean()
        return np.array([peaks.mean(), max(peaks.min(), -10.0), loss, np.log(len(peaks)), len(path) / len(peaks)])

    def __call__(self, evidence: Evidence) -> float:
        features = self.features(evidence)
        if not len(self.weights):
            return float(np.exp(features[0]))
        return float(1 / (1 + np.exp(-(features @ self.weights[:-1] + self.weights[-1]))))
