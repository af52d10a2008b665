"""The compiled search against every sentence there is, each aligned by dynamic programming."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import search as search_module
from asr.decoding.lexicon import Lexicon
from asr.decoding.ngram import BEGIN, END, UNKNOWN
from asr.decoding.phrases import PhraseAutomaton
from asr.decoding.search import Options, Search, SearchGraph
from asr.decoding.tree import LexiconTree, prefix_tree
from asr.model.tokens import TokenSet
from tests.support.language import ngram_of

BLANK, BOUNDARY, A, B, C = range(5)
TOKENS = TokenSet(("-", "|", "A", "B", "C"), "-", "|", (0.2,) * 5)
SPELLINGS = [("a", "A"), ("ab", "A B"), ("aa", "A A"), ("ba", "B A"), ("bah", "B A"), ("c", "C")]
LEXICON = Lexicon([(word, spelling.split()) for word, spelling in SPELLINGS], TOKENS)
WORDS = LEXICON.words
MODEL = ngram_of(
    {
        **{(word,): (-1.0 - 0.1 * i, -0.2) for i, word in enumerate([UNKNOWN, *WORDS])},
        (BEGIN,): (-99.0, -0.1),
        (END,): (-0.7, 0.0),
        (BEGIN, "a"): (-0.3, -0.4),
        ("a", "ba"): (-0.2, -0.1),
        ("ba", "a"): (-0.9, -0.3),
        ("a", "a"): (-1.5, -0.2),
        ("bah", "c"): (-0.1, 0.0),
        ("c", END): (-0.1, 0.0),
        (BEGIN, "a", "ba"): (-0.1, 0.0),
        ("a", "ba", "a"): (-0.3, 0.0),
        ("a", "a", "a"): (-0.2, 0.0),
    }
)
TREE = LexiconTree.build(LEXICON, MODEL)
WEIGHT, WORD_SCORE = 0.8, -0.4


def graph(phrases=()) -> SearchGraph:
    automaton = PhraseAutomaton([(tuple(WORDS.index(word) for word in words), bonus) for words, bonus in phrases])
    hot = {WORDS.index(word) for words, _ in phrases for word in words}
    entries = [(number, spelling, 0.5) for number, spelling in LEXICON.spellings if number in hot]
    return SearchGraph(TREE.arrays, prefix_tree(entries), MODEL.arrays, TREE.numbers, automaton.arrays)


def begin(beam=500, phrases=(), threshold=1e4, margin=1e4, tokens=5) -> Search:
    options = Options(
        beam, tokens, threshold, margin, WEIGHT, WORD_SCORE, -6.0, BLANK, BOUNDARY, MODEL.unknown, MODEL.end
    )
    return Search(graph(phrases), options, MODEL.begin, np.zeros(5, np.float32))


def heard(seed: int, frames: int, sharp: float = 2.0) -> np.ndarray:
    logits = sharp * np.random.default_rng(seed).standard_normal((frames, 5))
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def aligned(emissions: np.ndarray, sentence: tuple[str, ...]) -> float:
    """The best way to hear a sentence: at the root and behind a token blanks may come, at the root boundaries too."""
    states = [(BLANK, BOUNDARY)]  # what may be heard in each state, again and again
    enter = [True]  # whether a state may follow the last but one at once
    for word in sentence:
        spelling = LEXICON.of(word)[0][:-1]
        for i, token in enumerate(spelling):
            states += [(token,), (BLANK,)]
            enter += [i == 0 or spelling[i - 1] != token, False]
        states.append((BLANK, BOUNDARY))
        enter.append(True)
    score = np.full(len(states), -np.inf)
    score[0] = 0.0
    root = [i for i, each in enumerate(states) if len(each) == 2]
    for e in emissions:
        new = np.full(len(states), -np.inf)
        for i, each in enumerate(states):
            best = score[i] + max(e[token] for token in each)
            if i:
                step = e[BOUNDARY] if i in root else e[states[i][0]]  # a word ends with a boundary
                before = score[i - 1] + step
                # into a token's first frame, from the root or from the blank before it; into the root from either
                best = max(best, before)
                if i >= 2 and enter[i] and i - 1 not in root:
                    best = max(best, score[i - 2] + step)
            new[i] = best
        score = new
    return float(score[-1])


def judged(emissions: np.ndarray, sentence: tuple[str, ...], phrases=()) -> float:
    language = sum(MODEL.scores(MODEL.numbers(sentence)))
    for end in range(1, len(sentence) + 1):
        language += max((bonus for words, bonus in phrases if sentence[:end][-len(words) :] == words), default=0.0)
    return aligned(emissions, sentence) + WEIGHT * language + WORD_SCORE * len(sentence)


def everything(emissions: np.ndarray, phrases=(), most: int = 2) -> list[tuple[float, tuple[str, ...]]]:
    # A word takes two frames at least.
    found = [
        (judged(emissions, sentence, phrases), sentence)
        for n in range(most + 1)
        for sentence in itertools.product(WORDS, repeat=n)
    ]
    return sorted(found, reverse=True)


def text(path) -> tuple[str, ...]:
    return tuple(WORDS[label] for label in path.labels if label >= 0)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 5), st.booleans())
def test_the_best_sentences_are_found_with_their_scores(seed: int, frames: int, hot: bool) -> None:
    phrases = [(("a", "ba"), 1.5), (("bah",), 0.75)] if hot else []
    emissions = heard(seed, frames)
    search = begin(phrases=phrases)
    search.accept(emissions)
    expected = [each for each in everything(emissions, phrases) if np.isfinite(each[0])]
    found = search.nbest(5)
    assert [path.score for path in found] == pytest.approx([score for score, _ in expected[: len(found)]], abs=1e-3)
    assert len(found) == min(5, len(expected))
    assert len({text(path) for path in found}) == len(found)
    assert found[0].score == pytest.approx(judged(emissions, text(found[0]), phrases), abs=1e-3)


def test_tokens_spell_the_words() -> None:
    emissions = heard(5, 40)
    search = begin()
    search.accept(emissions)
    for path in search.nbest(5):
        spoken: list[int] = []
        before = BLANK
        words = []
        for label, token in zip(path.labels, path.tokens, strict=True):
            if token not in (BLANK, BOUNDARY) and token != before:
                spoken.append(int(token))
            before = token
            if label >= 0:
                assert token == BOUNDARY and tuple(spoken) in {each[:-1] for each in LEXICON.of(WORDS[label])}
                words.append(label)
                spoken = []
        assert words and not spoken


@settings(max_examples=25)
@given(st.integers(0, 1000), st.lists(st.integers(0, 60), max_size=5), st.integers(2, 30))
def test_any_split_and_any_compaction_find_the_same(seed: int, cuts: list[int], room: int) -> None:
    emissions = heard(seed, 60)
    whole, parts = begin(30, margin=3.0), begin(30, margin=3.0)
    parts._become(
        parts._state._replace(arena=parts._state.arena[: 2 * 30 + room].copy())
    )  # so small that it is compacted all the time
    whole.accept(emissions)
    for first, end in itertools.pairwise([0, *sorted(cuts), 60]):
        parts.accept(emissions[first:end])
    for one, other in zip(whole.nbest(5), parts.nbest(5), strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-3)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.tokens, other.tokens)
    assert whole.silence == pytest.approx(parts.silence, abs=1e-3)


def test_memory_is_that_of_the_best_path() -> None:
    """After a long time hypotheses have one past in common; nothing else of it is kept."""
    search = begin(50, margin=0.0)
    for i in range(20):
        search.accept(heard(i, 100))
    search._compact()
    assert search.frames <= search._state.alive[1] <= search.frames + 50 * 40 and len(search) <= 50
    assert len(search._state.arena) <= 4 * search.frames + 2 * search_module.FRAMES * 50


def test_a_copy_goes_its_own_way() -> None:
    search, emissions = begin(100), heard(1, 40)
    search.accept(emissions[:20])
    before = search.best()
    copy = search.copy(20)
    copy.accept(heard(2, 20))
    after = search.best()
    assert after.score == before.score and copy.best().score != before.score and len(copy) <= 20 < len(search)
    search.accept(emissions[20:])
    alone = begin(100)
    alone.accept(emissions)
    assert search.best().score == pytest.approx(alone.best().score, abs=1e-3)
    assert text(search.best()) == text(alone.best())


def test_nothing_heard_is_nothing_said() -> None:
    path = begin().best()
    assert len(path.labels) == len(path.tokens) == 0
    search = begin()
    search.accept(np.zeros((0, 5), np.float32))
    assert text(search.best()) == ()


def test_a_sentence_in_the_middle_of_a_word_ends_with_the_last_whole_one() -> None:
    emissions = np.full((4, 5), -50.0, np.float32)
    for frame, token in enumerate((A, BOUNDARY, B, A)):
        emissions[frame, token] = 0.0
    search = begin(threshold=12.0)
    search.accept(emissions)
    assert text(search.best()) == ("a",)


def test_threads_search_at_once_and_find_the_same() -> None:
    emissions = [heard(seed, 80) for seed in range(12)]

    def find(each: np.ndarray) -> tuple[tuple[str, ...], float]:
        search = begin(200, margin=3.0)
        search.accept(each)
        return text(search.best()), search.best().score

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(find, emissions)) == list(map(find, emissions))


def test_python_runs_while_it_searches() -> None:
    seen: list[int] = []
    emissions = heard(0, 10_000)

    def work() -> None:
        begin(200, margin=3.0).accept(emissions)
        seen.append(-1)

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        seen.append(len(seen))
        thread.join(0.0005)
    assert seen.index(-1) > 20  # under the lock it would be 1 or so: no other thread would run before the end
