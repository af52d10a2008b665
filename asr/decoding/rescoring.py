"""The second judgment of final text: the sentences that the search liked best, by an LSTM language model, and which of
them has the fewest wrong words.

The search can ask an n-gram only, which sees a few words back; an LSTM sees the whole sentence, but costs too much to
be asked about every path. So it is asked about the n best sentences, and its probabilities are mixed with the n-gram's,
word by word (Mikolov et al. 2010, "Recurrent neural network based language model"). One model is often right where the
other is surprised: the mixture is less perplexed than either.

The likeliest sentence is not the one with the fewest wrong words to expect: where many sentences that are nearly as
likely agree on a word, that word is probably right. So the sentence is taken that is nearest to all of them (Stolcke,
König & Weintraub 1997, "Explicit word error minimization in N-best list rescoring").
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

POSTERIOR_SCALE = 0.7  # of the scores, whose differences are too large for logarithms of probabilities


def expected_errors(sentences: Sequence[Sequence[int]], scores: ArrayLike) -> np.ndarray:
    """How many words of each sentence will be wrong if these, with their scores (natural log), are all there are."""
    likely = np.exp(POSTERIOR_SCALE * (np.asarray(scores) - np.max(scores)))
    return cdist(sentences, sentences, scorer=Levenshtein.distance) @ (likely / likely.sum())


class NGram(Protocol):
    def scores(self, words: Sequence[int]) -> list[float]:
        """log10 probability of each word index after those before it, and of the sentence's end."""


class Neural(Protocol):
    def score(self, sentences: Sequence[Sequence[str]]) -> list[list[float]]:
        """Natural-log probability of each word of each sentence, and of its end; nan for unknown words."""


class Rescorer:
    """Gives the neural model `share` of each word's probability, and the n-gram the rest, at the n-gram's weight.

    `words[i]` is the word of index i. `hot` words, which somebody expects, and those that the neural model does not
    know keep the n-gram's score.
    """

    def __init__(
        self,
        ngram: NGram,
        neural: Neural,
        words: Sequence[str],
        lm_weight: float,
        share: float,
        hot: Collection[int] = (),
    ) -> None:
        self.ngram, self.neural, self.words, self.hot = ngram, neural, words, hot
        self.lm_weight, self.share = lm_weight, share

    def scores(self, sentences: Sequence[Sequence[int]], searched: Sequence[float]) -> list[float]:
        """New scores (natural log) of sentences of word indices, from those of the search."""
        judged = self.neural.score([[self.words[word] for word in sentence] for sentence in sentences])
        return [
            score + self.lm_weight * self._gain(sentence, neural)
            for sentence, score, neural in zip(sentences, searched, judged, strict=True)
        ]

    def _gain(self, sentence: Sequence[int], neural: Sequence[float]) -> float:
        """How much likelier a sentence is to the mixture, log10."""
        judged = zip([*sentence, None], self.ngram.scores(sentence), neural, strict=True)  # None: the sentence's end
        return sum(
            math.log10((1 - self.share) * 10**old + self.share * math.exp(new)) - old
            for word, old, new in judged
            if word not in self.hot and not math.isnan(new)
        )
