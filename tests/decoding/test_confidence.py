"""Weights of a checkpoint that fit the features, and others."""

import math

import numpy as np
import pytest

from asr.decoding.confidence import Confidence, Evidence
from asr.model.integrity import CheckpointWarning
from asr.model.tokens import TokenSet

TOKENS = TokenSet(("-", " ", "a", "b"), "-", " ", (0.25,) * 4)
EMISSIONS = np.log(np.full((4, 4), 0.1, np.float32) + 0.6 * np.eye(4, dtype=np.float32))


def evidence(*language: float) -> Evidence:
    return Evidence(EMISSIONS, np.array([0, 2, 2, 3]), 1, 3, language)


@pytest.mark.parametrize("language", [(), (-1.0, -2.0)])
def test_weights_are_those_of_all_features_and_the_bias(recwarn, language: tuple[float, ...]) -> None:
    found = Confidence(TOKENS, (), scores=bool(language)).features(evidence(*language))
    weights = (*[0.0] * (len(found) - 1), 2.0, 0.5)
    sure = Confidence(TOKENS, weights, scores=bool(language))(evidence(*language))
    assert sure == pytest.approx(1 / (1 + math.exp(-(2 * found[-1] + 0.5)))) and not recwarn.list


@pytest.mark.parametrize("count", [1, 6, 8, 9, 10])
def test_weights_of_other_features_are_not_used(count: int) -> None:
    with pytest.warns(
        CheckpointWarning, match=rf"'decoding\.greedy_confidence'.* {count} weights instead of 7.*`asr tune`"
    ):
        other = Confidence(TOKENS, (1.0,) * count, scores=False)
    assert other(evidence()) == Confidence(TOKENS, (), scores=False)(evidence())
