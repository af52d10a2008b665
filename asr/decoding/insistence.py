"""How much likelier a final must be than firm words to correct them.

Somebody has read the firm words already, and which of two nearly tied sentences is right is a coin's toss: the one that
keeps them is the better choice. Whole sentences that a search has found are weighed, never single tokens, so no final
says what does not sound like it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

INSISTENCE = 1.5  # natural log, for each firm word that is corrected

Path = TypeVar("Path")


def corrections(firm: Sequence[str], sentence: Sequence[str]) -> int:
    """Words that must be replaced, removed or added for the sentence to begin with the firm ones (Levenshtein 1966, to
    that beginning of the sentence which is nearest)."""
    edits = list(range(len(firm) + 1))  # from so many firm words to the words of the sentence so far
    fewest = edits[-1]
    for word in sentence:
        diagonal, edits[0] = edits[0], edits[0] + 1
        for i, expected in enumerate(firm, 1):
            changed = diagonal + (word != expected)
            diagonal = edits[i]
            edits[i] = min(changed, edits[i] + 1, edits[i - 1] + 1)
        fewest = min(fewest, edits[-1])
    return fewest


def keep(
    firm: Sequence[str],
    ranked: Sequence[tuple[Path, float]],
    words: Callable[[Path], list[str]],
    rivals: Callable[[set[str]], list[tuple[Path, float]]],
) -> list[tuple[Path, float]]:
    """Sentences and their scores (natural log), led by the one that keeps firm words as far as the best does not insist
    on others.

    `words` are those of a sentence; `rivals` finds the sentences of a few words, those of the firm words and of the
    best: it costs little, and has the combinations of doubtful places, of which a list of the n best has few. It is
    asked again from what is chosen, for a long sentence has more doubtful places than its list has combinations.
    """

    def value(sentence: tuple[Path, float]) -> float:
        return sentence[1] - INSISTENCE * corrections(firm, words(sentence[0]))

    chosen = ranked[0]
    while corrections(firm, said := words(chosen[0])):
        better = max(rivals({*firm, *said}), key=value, default=chosen)
        if value(better) <= value(chosen):
            break
        chosen = better
    return [chosen, *(each for each in ranked if words(each[0]) != said)]
