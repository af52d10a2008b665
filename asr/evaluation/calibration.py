"""Fits a decoder's word confidences to utterances whose texts are known (`asr.decoding.confidence`)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from asr.decoding.beam import BeamDecoder
from asr.decoding.confidence import Confidence, Evidence
from asr.decoding.decoder import Emissions
from asr.decoding.greedy import GreedyDecoder
from asr.errors import ManifestError
from asr.evaluation.evaluate import scored_words
from asr.evaluation.scoring import align_words, auroc, fit_logistic, normalized_cross_entropy
from asr.text.results import Word


@dataclass(frozen=True)
class Sample:
    """The emissions of one utterance, and the words that are said. `voice` is its speaker where one is named."""

    corpus: str
    voice: str
    reference: str
    emissions: Emissions


@dataclass(frozen=True)
class Calibration:
    """Weights with the bias last; AUROC and normalized cross entropy of the old ones and, cross-validated, the new."""

    weights: tuple[float, ...]
    old: tuple[float, float]
    new: tuple[float, float]


class Recorder(Confidence):
    """Stands in for a decoder's confidence, and notes each word's features and what the old weights make of them."""

    def __init__(self, old: Confidence) -> None:
        self.old = old
        self.features_of: list[np.ndarray] = []  # each word, in order
        self.confidences: list[float] = []

    def __call__(self, evidence: Evidence) -> float:
        features = self.old.features(evidence)
        self.features_of.append(features)
        self.confidences.append(self.old(evidence))
        return self.confidences[-1]


def record(decoder: GreedyDecoder | BeamDecoder, emissions: Emissions) -> list[tuple[Word, np.ndarray, float]]:
    """The words of an utterance, each with its features and its confidence by the old weights."""
    recorder, recording = Recorder(decoder.confidence), copy(decoder)
    recording.confidence = recorder
    return list(zip(recording.decode(emissions), recorder.features_of, recorder.confidences, strict=True))


def calibrate(decoder: GreedyDecoder | BeamDecoder, samples: Sequence[Sample], language: str) -> Calibration:
    """Fits a decoder's confidence to the words it gets right; the decoder stays as it is.

    The new figures are of two folds, each judged by weights that were fitted on the other; no speaker is in both.
    Raises ManifestError where no fit is possible.
    """
    voices = {voice: i % 2 for i, voice in enumerate(sorted({sample.voice for sample in samples}))}
    rows, sure, right, fold = [], [], [], []
    for sample in samples:
        # A word may be scored as several, or as none.
        scored = [
            (each, features, confidence)
            for word, features, confidence in record(decoder, sample.emissions)
            for each in scored_words([word], language)
        ]
        rows += [features for _, features, _ in scored]
        sure += [confidence for _, _, confidence in scored]
        right += align_words(sample.reference.split(), [word for word, _, _ in scored])
        fold += [voices[sample.voice]] * len(scored)
    x, correct, part = np.array(rows), np.array(right), np.array(fold)
    crossed = np.zeros(len(x))
    try:
        for each in (0, 1):
            weights, bias = fit_logistic(x[part != each], correct[part != each])
            crossed[part == each] = 1 / (1 + np.exp(-(x[part == each] @ weights + bias)))
        weights, bias = fit_logistic(x, correct)
    except ValueError as error:
        raise ManifestError(f"{error} Give more utterances, of several speakers.") from error
    return Calibration(
        tuple(round(float(value), 5) for value in (*weights, bias)),
        (auroc(sure, right), normalized_cross_entropy(sure, right)),
        (auroc(crossed, right), normalized_cross_entropy(crossed, right)),
    )
