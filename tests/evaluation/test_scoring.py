"""Error rates, intervals, measures of confidence and calibration, against hand counts and plain definitions."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from asr.evaluation.scoring import align_words, auroc, bootstrap_interval, fit_logistic, normalized_cross_entropy, score
from asr.text.results import Word

SENTENCES = st.lists(st.sampled_from(["a", "b", "cc"]), max_size=5).map(" ".join)


def edit_distance(reference, hypothesis) -> int:
    row = list(range(len(hypothesis) + 1))
    for i, said in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, heard in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (said != heard))
    return row[-1]


def test_score_by_hand() -> None:
    result = score(["the cat sat", "on the mat", ""], ["the bat sat down", "on mat", "oh dear"])
    assert (result.words, result.substitutions, result.deletions, result.insertions) == (6, 1, 1, 3)
    assert result.word_errors == 5 and result.wer == pytest.approx(5 / 6)
    assert result.utterance_errors == (2, 1, 2) and result.utterance_words == (3, 3, 0)
    assert sum(result.utterance_characters) == 11 + 10
    assert sum(result.utterance_character_errors) == (1 + 5) + 4 + 7
    assert result.cer == pytest.approx(17 / 21)


def test_score_of_nothing() -> None:
    assert score([], []).wer == 0 and score([""], [" "]).cer == 0
    assert score([""], ["a"]).wer == math.inf and score(["a"], [""]).wer == 1
    with pytest.raises(ValueError, match="1 references"):
        score(["a"], [])


@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=4))
def test_score_is_the_edit_distance(pairs) -> None:
    references, hypotheses = zip(*pairs, strict=True)
    result = score(references, hypotheses)
    assert result.utterance_errors == tuple(edit_distance(r.split(), h.split()) for r, h in pairs)
    assert result.word_errors == sum(result.utterance_errors)
    assert sum(result.utterance_character_errors) == sum(edit_distance(r, h) for r, h in pairs)


def test_bootstrap_is_the_percentile_of_all_resamples() -> None:
    errors, words = np.array([0, 1, 3]), np.array([5, 4, 6])
    every = [errors[list(drawn)].sum() / words[list(drawn)].sum() for drawn in product(range(3), repeat=3)]
    low, high = bootstrap_interval(errors, words, level=0.6, resamples=50_000)
    assert low == pytest.approx(np.quantile(every, 0.2)) and high == pytest.approx(np.quantile(every, 0.8))


def test_bootstrap_interval_narrows_and_repeats() -> None:
    few, many = [bootstrap_interval([0, 1, 2, 1] * n, [4, 5, 6, 3] * n) for n in (5, 500)]
    assert few[0] < many[0] < 4 / 18 < many[1] < few[1]
    assert few == bootstrap_interval([0, 1, 2, 1] * 5, [4, 5, 6, 3] * 5)
    assert few != bootstrap_interval([0, 1, 2, 1] * 5, [4, 5, 6, 3] * 5, seed=1)
    assert bootstrap_interval([1, 1], [2, 2]) == (0.5, 0.5)
    assert all(map(math.isnan, bootstrap_interval([], [])))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "right"),
    [
        ("the cat sat", "the bat sat", [True, False, True]),
        ("the cat sat", "the sat", [True, True]),
        ("cat", "the cat", [False, True]),
        ("", "oh", [False]),
        ("oh", "", []),
    ],
)
def test_align_words(reference: str, hypothesis: str, right: list[bool]) -> None:
    words = [Word(text, 0.0, 0.0, 1.0) for text in hypothesis.split()]
    assert align_words(reference.split(), words) == right


def test_a_word_with_a_space_is_one_word() -> None:
    assert align_words(["new york", "b"], [Word("new york", 0, 1, 1.0), Word("b", 1, 2, 1.0)]) == [True, True]


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.booleans()), max_size=12))
def test_auroc_is_the_share_of_ordered_pairs(words) -> None:
    rights = [sure for sure, right in words if right]
    wrongs = [sure for sure, right in words if not right]
    value = auroc([sure for sure, _ in words], [right for _, right in words])
    if rights and wrongs:
        pairs = [(a > b) + (a == b) / 2 for a, b in product(rights, wrongs)]
        assert value == pytest.approx(sum(pairs) / len(pairs))
    else:
        assert math.isnan(value)


def test_normalized_cross_entropy_by_hand() -> None:
    # 3 of 4 right: H_max = -(3 log2 0.75 + log2 0.25) = 3.2451; H = -(3 log2 0.9 + log2 0.8) = 0.7780
    assert normalized_cross_entropy([0.9, 0.9, 0.9, 0.2], [1, 1, 1, 0]) == pytest.approx(0.76028, abs=1e-4)
    assert normalized_cross_entropy([0.75] * 4, [1, 1, 1, 0]) == pytest.approx(0)
    assert normalized_cross_entropy([1, 1, 1, 0], [1, 1, 1, 0]) == pytest.approx(1, abs=1e-5)
    assert normalized_cross_entropy([1.0, 0.0], [0, 1]) == pytest.approx(1 + np.log2(1e-6), rel=1e-4)
    assert math.isnan(normalized_cross_entropy([0.5], [1]))


def test_fit_logistic_finds_the_least_loss() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal([3.0, -200.0, 0.0], [0.1, 50.0, 1.0], size=(400, 3))
    right = rng.random(400) < 1 / (1 + np.exp(-(20 * (x[:, 0] - 3) + 0.01 * (x[:, 1] + 200) + 1.5)))
    weights, bias = fit_logistic(x, right, l2=2.0)
    z = (x - x.mean(axis=0)) / x.std(axis=0)

    def loss(w: np.ndarray) -> float:
        logits = z @ w[:3] + w[3]
        return np.logaddexp(0, np.where(right, -logits, logits)).sum() + np.square(w[:3]).sum()

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-7}).x
    assert weights == pytest.approx(best[:3] / x.std(axis=0), rel=1e-3, abs=1e-6)
    assert x @ weights + bias == pytest.approx(z @ best[:3] + best[3], abs=1e-3)


def test_fit_logistic_at_its_limits() -> None:
    weights, bias = fit_logistic([[1.0, 7.0]] * 3 + [[2.0, 7.0]] * 5, [0] * 3 + [1] * 5)  # separable; constant
    assert weights[0] > 0 and weights[1] == 0 and np.isfinite(bias)
    weights, bias = fit_logistic([[7.0]] * 4, [1, 1, 1, 0])
    assert weights[0] == 0 and bias == pytest.approx(math.log(3))
    with pytest.raises(ValueError, match="only one kind"):
        fit_logistic([[1.0], [2.0]], [1, 1])
