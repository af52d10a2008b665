"""How sure a word is: evidence in the emissions under its tokens, through a logistic regression fitted by `asr tune`.

Features of this kind, and the regression, as in the confidence literature (Jiang 2005, "Confidence measures for speech
recognition: a survey").
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.model.integrity import CheckpointWarning
from asr.model.tokens import TokenSet

FEATURES, SCORES = 6, 2  # of the emissions, and of a language model
LOWEST = 10.0  # a log-probability further from 0 says no more than this one


@dataclass(frozen=True)
class Evidence:
    """A word in its utterance: emissions (F, V), the decoder's path (F,) of tokens, its first and last spoken frame,
    and what a language model, if there is one, gives to it and to the word after it (log10)."""

    emissions: np.ndarray
    path: np.ndarray
    first: int
    last: int
    language: tuple[float, ...] = ()


class Confidence:
    """Evidence → probability that the word is right, with a checkpoint's weights of the features and of the bias.

    `scores`: whether a language model gives its own. Without weights, and with a CheckpointWarning where there are too
    many or too few, it is a plain mean.
    """

    def __init__(self, tokens: TokenSet, weights: Sequence[float], scores: bool) -> None:
        if len(weights) not in (0, expected := FEATURES + scores * SCORES + 1):
            key = "lm_confidence" if scores else "greedy_confidence"
            warnings.warn(
                f"'decoding.{key}' in config.json has {len(weights)} weights instead of {expected}, so confidences are "
                f"plain means: make new ones with `asr tune`.",
                CheckpointWarning,
                stacklevel=2,
            )
            weights = ()
        self.silent = [tokens.blank_index, tokens.boundary_index]
        self.weights = np.asarray(weights)

    def features(self, evidence: Evidence) -> np.ndarray:
        """Mean and worst log-posterior of the word's tokens at their peaks, what the path loses a frame against the
        best tokens, mean entropy of a frame, log of the number of tokens, frames a token, language model's scores."""
        path = evidence.path[evidence.first : evidence.last + 1]
        logp = evidence.emissions[evidence.first : evidence.last + 1]
        frames = len(path)
        chosen = logp[np.arange(frames), path]
        tokens = path.tolist()
        runs = [i for i in range(frames) if i == 0 or tokens[i] != tokens[i - 1]]
        best = np.maximum.reduceat(chosen, runs).tolist()
        peaks = [peak for peak, i in zip(best, runs, strict=True) if tokens[i] not in self.silent]
        loss = float(np.minimum(logp.max(axis=1) - chosen, LOWEST).sum()) / frames
        entropy = -float(np.vdot(np.exp(logp), logp)) / frames
        return np.array(
            [
                sum(peaks) / len(peaks),
                max(min(peaks), -LOWEST),
                loss,
                entropy,
                math.log(len(peaks)),
                frames / len(peaks),
                *evidence.language,
            ]
        )

    def __call__(self, evidence: Evidence) -> float:
        features = self.features(evidence)
        if not len(self.weights):
            return math.exp(features[0])
        return float(1 / (1 + np.exp(-(features @ self.weights[:-1] + self.weights[-1]))))
