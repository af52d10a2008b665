"""The second judgment of final text: of the sentences that the search liked best, the best by an LSTM language model.

The search can ask an n-gram only, which sees a few words back; an LSTM sees the whole sentence, but costs too much to
be asked about every path. So it is asked about the n best sentences, and its probabilities are mixed with the n-gram's,
word by word (Mikolov et al. 2010, "Recurrent neural network based language model"). One model is often right where the
other is surprised: the mixture is less perplexed than either.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Protocol


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
