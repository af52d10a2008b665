"""Hot words: words and phrases that this conversation is likely to hold, known to the dictionary or not.

Each phrase is a path in an Aho–Corasick automaton over words that runs beside the n-gram model; following a phrase
earns its bonus in equal parts, leaving it half-way pays back what was lent ("shallow fusion" contextual biasing,
Williams et al. 2018).
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flashlight.lib.text.decoder import LM, LMState

from asr.errors import HotwordError
from asr.text.normalize import normalize

MOST = 30  # natural logarithm; a larger bonus would put the word everywhere
MOST_PHRASES, LONGEST_PHRASE, MOST_DIGITS = 1000, 100, 200  # of a list that comes from elsewhere; numbers take long


@dataclass(frozen=True)
class Hotword:
    """A word or phrase, lower case, and the natural-log bonus it earns as a whole (None: the checkpoint's default)."""

    phrase: tuple[str, ...]
    bonus: float | None = None

    @classmethod
    def parse(cls, text: str) -> Hotword:
        """`"rill"`, `"new york"`, `"rill:8"`. Raises HotwordError for an empty phrase or a bonus that is no number."""
        phrase, colon, number = text.rpartition(":")
        if not colon:
            phrase, number = text, ""
        words = tuple(normalize(phrase).split())
        if not words:
            raise HotwordError(f"Hot word '{text}' holds no word: write \"word\", \"a phrase\" or \"word:8\".")
        if not number:
            return cls(words)
        try:
            bonus = float(number)
        except ValueError:
            bonus = float("nan")
        if not 0 <= bonus <= MOST:
            raise HotwordError(f"Hot word '{text}': the bonus after the colon must be a number from 0 to {MOST}.")
        return cls(words, bonus)


def parse_list(phrases: object) -> tuple[Hotword, ...]:
    """A list of phrases that a client sent. Raises HotwordError where it is none, or larger than one person needs."""
    if not isinstance(phrases, list) or len(phrases) > MOST_PHRASES or not all(isinstance(p, str) for p in phrases):
        raise HotwordError(f"The phrases to expect must be a list of {MOST_PHRASES} texts at most.")
    if too_long := next((phrase for phrase in phrases if len(phrase) > LONGEST_PHRASE), None):
        raise HotwordError(f"Hot word '{too_long:.30}…' is longer than {LONGEST_PHRASE} characters: give shorter ones.")
    if sum(map(str.isdigit, "".join(phrases))) > MOST_DIGITS:
        raise HotwordError(f"The hot words hold more than {MOST_DIGITS} digits: write numbers in words.")
    return tuple(map(Hotword.parse, phrases))


@dataclass
class _Node:
    lent: float = 0.0  # bonus given so far for a phrase that goes on
    earned: float = 0.0  # largest bonus of the phrases that end here
    next: dict[int, _Node] = field(default_factory=dict)
    fallback: _Node | None = None


class PhraseAutomaton:
    """Bonus of following phrases of word indices; scores are in the language model's unit (log10)."""

    def __init__(self, phrases: Sequence[tuple[tuple[int, ...], float]]) -> None:
        self.root = _Node()
        for words, bonus in phrases:
            node = self.root
            for i, word in enumerate(words, 1):
                node = node.next.setdefault(word, _Node())
                if i < len(words):
                    node.lent = max(node.lent, bonus * i / len(words))
            node.earned = max(node.earned, bonus)
        layer = [(word, child, self.root) for word, child in self.root.next.items()]
        while layer:  # breadth first: a node's fallback is shallower than the node
            deeper = []
            for word, node, parent in layer:
                node.fallback = self.root if parent is self.root else self._follow(parent.fallback, word)
                node.earned = max(node.earned, node.fallback.earned)  # a shorter phrase ends here too
                deeper += [(w, child, node) for w, child in node.next.items()]
            layer = deeper

    def _follow(self, node: _Node | None, word: int) -> _Node:
        while node is not None:
            if word in node.next:
                return node.next[word]
            node = node.fallback
        return self.root

    def step(self, node: _Node, word: int) -> tuple[_Node, float]:
        """The node after `word`, and the bonus that this word earns (negative: what is paid back)."""
        after = self._follow(node, word)
        return after, after.earned + after.lent - node.lent


class HotwordLM(LM):
    """flashlight's language model interface around KenLM, with the automaton's bonus added.

    Word indices from `known` on are not in KenLM's vocabulary; they score no lower than `floor` (log10).
    One object serves one decoder: it remembers which phrase each of the decoder's states is in.
    """

    def __init__(self, model: LM, automaton: PhraseAutomaton, known: int, floor: float) -> None:
        LM.__init__(self)
        self.model, self.automaton = model, automaton
        self.known, self.floor = known, floor
        self.nodes: dict[LMState, _Node] = {}

    def start(self, start_with_nothing: bool) -> LMState:
        self.nodes.clear()
        return self.model.start(start_with_nothing)

    def score(self, state: LMState, word: int) -> tuple[LMState, float]:
        after, score = self.model.score(state, word)
        if word >= self.known:
            score = max(score, self.floor)
        node = self.nodes.get(state, self.automaton.root)
        following, bonus = self.automaton.step(node, word)
        if following is not self.automaton.root:
            self.nodes[after] = following  # the reference also keeps the state's identity alive
        return after, score + bonus

    def finish(self, state: LMState) -> tuple[LMState, float]:
        after, score = self.model.finish(state)
        return after, score - self.nodes.get(state, self.automaton.root).lent
