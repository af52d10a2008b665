"""Hot phrases as an automaton that the search walks beside the n-gram model.

Each phrase is a path in an Aho–Corasick automaton over words; following a phrase earns its bonus in equal parts,
leaving it half-way pays back what was lent ("shallow fusion" contextual biasing, Williams et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr.decoding import layout
from asr.decoding.compiling import library


class PhraseAutomaton:
    """Bonus of following phrases of word numbers, in the language model's unit (log10). State 0 is in none."""

    def __init__(self, phrases: Sequence[tuple[tuple[int, ...], float]]) -> None:
        following: list[dict[int, int]] = [{}]
        lent, earned = [0.0], [0.0]  # given so far for a phrase that goes on; the largest bonus of those that end here
        for words, bonus in phrases:
            state = layout.ROOT
            for i, word in enumerate(words, 1):
                if word not in following[state]:
                    following[state][word] = len(following)
                    following.append({})
                    lent.append(0.0)
                    earned.append(0.0)
                state = following[state][word]
                if i < len(words):
                    lent[state] = max(lent[state], bonus * i / len(words))
            earned[state] = max(earned[state], bonus)
        fallback = [layout.ROOT] * len(following)
        order = list(following[layout.ROOT].values())
        for state in order:  # breadth first: a state's fallback is shallower than the state
            earned[state] = max(earned[state], earned[fallback[state]])  # a shorter phrase ends here too
            for word, child in following[state].items():
                shorter = fallback[state]
                while word not in following[shorter] and shorter != layout.ROOT:
                    shorter = fallback[shorter]
                fallback[child] = following[shorter].get(word, layout.ROOT)
                order.append(child)
        steps = [pair for each in following for pair in sorted(each.items())]
        self.arrays = layout.Phrases(
            np.cumsum([0, *map(len, following)]).astype(np.int32),
            np.array([word for word, _ in steps], np.int32),
            np.array([state for _, state in steps], np.int32),
            np.array(fallback, np.int32),
            np.array(earned, np.float32),
            np.array(lent, np.float32),
        )

    def step(self, state: int, word: int) -> tuple[int, float]:
        """The state after `word`, and the bonus that this word earns (negative: what is paid back)."""
        bonus = layout.Bonus(np.empty(1, np.float32))
        after = library().follow(layout.table(self.arrays), layout.table(bonus), state, word)
        return after, float(bonus.earned[0])
