"""Language models that fit on a page."""

from collections.abc import Mapping, Sequence

import numpy as np

from asr.decoding.ngram import BEGIN, END, UNKNOWN, NGram, arrays_of

Grams = Mapping[tuple[str, ...], tuple[float, float]]


def ngram_of(grams: Grams) -> NGram:
    """From n-grams of words with log10 probabilities and back-offs; the unigrams are the vocabulary."""
    vocabulary = [gram[0] for gram in grams if len(gram) == 1]
    index = {word: number for number, word in enumerate(vocabulary)}
    tables = []
    for order in range(1, max(map(len, grams)) + 1):
        members = [gram for gram in grams if len(gram) == order]
        values = np.array([grams[gram] for gram in members], np.float32).reshape(-1, 2)
        words = np.array([[index[word] for word in gram] for gram in members], np.int32).reshape(-1, order)
        tables.append((words, values[:, 0], values[:, 1]))
    return NGram(arrays_of(vocabulary, tables))


def bigram_model(words: Sequence[str], bigrams: Mapping[tuple[str, str], float], other: float) -> NGram:
    """log10 scores of pairs of words; `other` for the rest, and 0 for the end of a sentence."""
    unigrams = {(word,): (other, 0.0) for word in [UNKNOWN, *words]}
    return ngram_of(
        {
            **unigrams,
            (BEGIN,): (-99.0, 0.0),
            (END,): (0.0, 0.0),
            **{pair: (score, 0.0) for pair, score in bigrams.items()},
        }
    )
