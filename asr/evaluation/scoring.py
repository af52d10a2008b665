"""How good transcripts and confidences are: error rates with intervals, measures of confidence, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from numpy.typing import ArrayLike, NDArray

from asr.text.normalize import normalize
from asr.text.results import Word

# Transcripts and dictionaries disagree on whether these are written out; on both sides they are scored as said.
TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor"}
MIN_CONFIDENCE = 1e-6  # confidences are clipped to [1e-6, 1 - 1e-6] before their logarithm is taken


@dataclass(frozen=True, slots=True)
class Score:
    """Edit operations that turn references into hypotheses, summed over utterances.

    Characters include the one space between words. Tuples hold each utterance's, in order: what `bootstrap_interval`
    takes.
    """

    words: int
    substitutions: int
    deletions: int
    insertions: int
    utterance_errors: tuple[int, ...]
    utterance_words: tuple[int, ...]
    utterance_character_errors: tuple[int, ...]
    utterance_characters: tuple[int, ...]

    @property
    def word_errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float:
        """Word error rate; infinite where words were heard and none was said."""
        return _rate(self.word_errors, self.words)

    @property
    def cer(self) -> float:
        """Character error rate, likewise."""
        return _rate(sum(self.utterance_character_errors), sum(self.utterance_characters))


def spoken(text: str, language: str = "en") -> str:
    """The words of a reference or a hypothesis as they are scored: normalized, English titles written out."""
    titles = TITLES if language.startswith("en") else {}
    return " ".join(titles.get(word, word) for word in normalize(text, language).split())


def score(references: Sequence[str], hypotheses: Sequence[str]) -> Score:
    """Word and character errors by least edit distance (Levenshtein 1966), utterance by utterance, of words as they
    are spelled (see `spoken`). Raises ValueError if the two lists differ in length.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references cannot be compared with {len(hypotheses)} hypotheses.")
    said = [reference.split() for reference in references]
    heard = [hypothesis.split() for hypothesis in hypotheses]
    edits = [_count_edits(*pair) for pair in zip(said, heard, strict=True)]
    spelled = [(" ".join(ours), " ".join(theirs)) for ours, theirs in zip(said, heard, strict=True)]
    return Score(
        words=sum(map(len, said)),
        substitutions=sum(edit["substitute"] for edit in edits),
        deletions=sum(edit["delete"] for edit in edits),
        insertions=sum(edit["insert"] for edit in edits),
        utterance_errors=tuple(sum(edit.values()) for edit in edits),
        utterance_words=tuple(map(len, said)),
        utterance_character_errors=tuple(sum(_count_edits(*pair).values()) for pair in spelled),
        utterance_characters=tuple(len(reference) for reference, _ in spelled),
    )


def bootstrap_interval(
    errors_per_utterance: ArrayLike,
    words_per_utterance: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval (low, high) of the error rate, sum of errors / sum of words, over resampled utterances.

    M. Bisani and H. Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
    (nan, nan) where there is no word.
    """
    errors, words = np.asarray(errors_per_utterance), np.asarray(words_per_utterance)
    if not words.sum():
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(words), size=(resamples, len(words)))
    rates = errors[drawn].sum(axis=1) / np.maximum(words[drawn].sum(axis=1), 1)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def align_words(reference: Sequence[str], hypothesis: Sequence[Word]) -> list[bool]:
    """Which hypothesis words are right: those that the least edit distance matches with an equal reference word."""
    right = [False] * len(hypothesis)
    for chunk in _align(reference, [word.text for word in hypothesis]):
        if chunk.type == "equal":
            right[chunk.hyp_start_idx : chunk.hyp_end_idx] = [True] * (chunk.hyp_end_idx - chunk.hyp_start_idx)
    return right


def auroc(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Probability that a right word is surer than a wrong one, ties counted as half; nan if all are right or wrong.

    The area under the receiver operating characteristic, as the Mann-Whitney rank statistic: J. A. Hanley and
    B. J. McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
    Radiology 143, 1982.
    """
    right = np.asarray(correct, bool)
    _, place, ties = np.unique(np.asarray(confidences, float), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]  # from 1; equal confidences share their mean rank
    rights, wrongs = int(right.sum()), int((~right).sum())
    if not rights or not wrongs:
        return float("nan")
    return float((ranks[right].sum() - rights * (rights + 1) / 2) / (rights * wrongs))


def normalized_cross_entropy(confidences: ArrayLike, correct: ArrayLike) -> float:
    """NIST's normalized cross entropy, (H_max - H) / H_max in bits: 1 is certain and right, 0 knows no more than the
    share of right words, below 0 misleads; nan if all words are right or all wrong.

    M. Siu and H. Gish, "Evaluation of word confidence for speech recognition systems", Computer Speech and Language
    13 (4), 1999; as in NIST's sclite.
    """
    right = np.asarray(correct, bool)
    sure = np.clip(np.asarray(confidences, float), MIN_CONFIDENCE, 1 - MIN_CONFIDENCE)
    if right.all() or not right.any():
        return float("nan")
    entropy = -np.log2(np.where(right, sure, 1 - sure)).sum()
    most = -np.log2(np.where(right, right.mean(), 1 - right.mean())).sum()
    return float((most - entropy) / most)


def fit_logistic(features: ArrayLike, correct: ArrayLike, *, l2: float = 1.0) -> tuple[NDArray[np.float64], float]:
    """Weights (d,) and bias with which 1 / (1 + exp(-(features @ weights + bias))) is the probability of being right.

    `features` (n, d), `correct` (n,). Least sum of log losses + l2 / 2 · |weights|² over standardised features,
    the bias unpenalised, by Newton's method (iteratively reweighted least squares; Hastie, Tibshirani and Friedman,
    "The Elements of Statistical Learning", section 4.4.1). A constant feature gets weight 0. Raises ValueError if all
    are right or all wrong.
    """
    x, right = np.asarray(features, float), np.asarray(correct, float)
    if right.all() or not right.any():
        raise ValueError("Calibration needs right words and wrong words, and has only one kind.")
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation = np.where(deviation > 1e-12 * (1 + abs(mean)), deviation, np.inf)
    x = np.column_stack([(x - mean) / deviation, np.ones(len(x))])
    penalty = np.append(np.full(x.shape[1] - 1, l2), 0.0)

    def loss(w: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, x @ w).sum() - right @ (x @ w) + penalty @ w**2 / 2)

    w = np.zeros(x.shape[1])
    for _ in range(100):
        probability = 1 / (1 + np.exp(-(x @ w)))
        gradient = x.T @ (probability - right) + penalty * w
        curvature = (x.T * (probability * (1 - probability))) @ x + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        while loss(w - step) > loss(w) and abs(step).max() > 1e-9:
            step /= 2
        w -= step
        if abs(step).max() <= 1e-9:
            break
    weights = w[:-1] / deviation  # of the features as they came
    return weights, float(w[-1] - weights @ mean)


def _align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[jiwer.AlignmentChunk]:
    """Runs of equal, substituted, deleted and inserted tokens. Tokens may hold anything, spaces too."""
    if not reference:  # older versions of jiwer refuse it
        return [jiwer.AlignmentChunk("insert", 0, 0, 0, len(hypothesis))] if hypothesis else []
    numbers: dict[str, str] = {}
    said, heard = (
        " ".join(numbers.setdefault(token, str(len(numbers))) for token in side) for side in (reference, hypothesis)
    )
    return jiwer.process_words(said, heard).alignments[0]


def _count_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> dict[str, int]:
    counts = {"substitute": 0, "delete": 0, "insert": 0}
    for chunk in _align(reference, hypothesis):
        if chunk.type != "equal":
            counts[chunk.type] += max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
    return counts


def _rate(errors: int, reference: int) -> float:
    return errors / reference if reference else float("inf") if errors else 0.0
