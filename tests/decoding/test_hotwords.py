import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.decoding.hotwords import Hotword
from asr.decoding.phrases import PhraseAutomaton
from asr.errors import HotwordError


@pytest.mark.parametrize(
    "text, phrase, bonus",
    [
        ("rill", ("rill",), None),
        ("rill:8", ("rill",), 8.0),
        ("rill:0", ("rill",), 0.0),
        ("New  York", ("new", "york"), None),
        ("New York: 2.5", ("new", "york"), 2.5),
        ("O’Brien", ("o'brien",), None),
        ("rill:", ("rill",), None),
        ("3 pigs", ("three", "pigs"), None),
        (" café ", ("café",), None),
        ("a:b:7", ("a", "b"), 7.0),
    ],
)
def test_parse(text, phrase, bonus):
    assert Hotword.parse(text) == Hotword(phrase, bonus)


@pytest.mark.parametrize(
    "text", ["", "  ", "!?", ":8", "-:3", "rill:loud", "rill:-1", "rill:101", "rill:nan", "rill:inf"]
)
def test_what_is_no_hot_word_is_named(text):
    with pytest.raises(HotwordError) as caught:
        Hotword.parse(text)
    assert f"'{text}'" in str(caught.value)


def test_one_that_would_take_minutes_is_refused():
    with pytest.raises(HotwordError, match=r"^Hot word '999.*…' is longer than 100 characters"):
        Hotword.parse("9" * 120_000)
    assert Hotword.parse("9" * 100).phrase


def earned(phrases, words, at_end=True) -> float:
    """What a sequence of words earns, what is still lent at its end paid back."""
    automaton = PhraseAutomaton(phrases)
    state, total = 0, 0.0
    for word in words:
        state, bonus = automaton.step(state, word)
        total += bonus
    return total - float(automaton.arrays.lent[state]) if at_end else total


NEW, YORK, CITY, TIMES, OTHER = range(5)


@pytest.mark.parametrize(
    "phrases, words, total",
    [
        ([((NEW, YORK), 4.0)], [NEW, YORK], 4),
        ([((NEW, YORK), 4.0)], [OTHER, NEW, YORK, OTHER], 4),
        ([((NEW, YORK), 4.0)], [NEW, OTHER], 0),  # an abandoned beginning
        ([((NEW, YORK), 4.0)], [NEW], 0),  # an unfinished one
        ([((NEW, YORK), 4.0)], [NEW, NEW, YORK], 4),
        ([((NEW, YORK), 4.0)], [YORK], 0),
        ([((NEW, YORK), 4.0)], [NEW, YORK, NEW, YORK], 8),
        ([((NEW,), 3.0)], [NEW, NEW], 6),
        ([((NEW, YORK), 4.0), ((NEW, YORK, CITY), 6.0)], [NEW, YORK, OTHER], 4),  # the shorter phrase is not lost
        ([((NEW, YORK), 4.0), ((NEW, YORK, CITY), 6.0)], [NEW, YORK, CITY], 10),
        ([((NEW, YORK, CITY), 6.0), ((YORK,), 5.0)], [NEW, YORK, TIMES], 5),  # a phrase inside another one's beginning
        ([((NEW, YORK, CITY), 6.0), ((YORK, TIMES), 5.0)], [NEW, YORK, TIMES], 5),  # over to the other phrase
        ([((NEW, YORK), 4.0), ((YORK, CITY), 3.0)], [NEW, YORK, CITY], 7),  # overlapping
        ([((NEW, YORK), 4.0), ((NEW, YORK), 7.0)], [NEW, YORK], 7),  # given twice
        ([], [NEW, YORK], 0),
    ],
)
def test_what_words_earn(phrases, words, total):
    assert earned(phrases, words) == pytest.approx(total, abs=1e-5)


def test_a_phrase_is_lent_its_bonus_in_equal_parts():
    assert [earned([((NEW, YORK, CITY), 6.0)], [NEW, YORK, CITY][:n], at_end=False) for n in range(4)] == [0, 2, 4, 6]


words = st.integers(0, 2)
phrase_lists = st.lists(
    st.tuples(st.lists(words, min_size=1, max_size=4).map(tuple), st.integers(1, 9).map(float)), max_size=5
)


@given(phrases=phrase_lists, spoken=st.lists(words, max_size=15))
def test_every_complete_phrase_earns_its_bonus_and_nothing_else_does(phrases, spoken):
    """By brute force: each word earns the largest bonus of the phrases that end with it."""
    expected = 0.0
    for end in range(1, len(spoken) + 1):
        expected += max(
            (bonus for phrase, bonus in phrases if tuple(spoken[:end])[-len(phrase) :] == phrase), default=0
        )
    assert earned(phrases, spoken) == pytest.approx(expected, abs=1e-5)


@given(phrases=phrase_lists, spoken=st.lists(words, max_size=15))
def test_what_is_lent_is_part_of_a_bonus(phrases, spoken):
    most = max((bonus for _, bonus in phrases), default=0)
    lent = earned(phrases, spoken, at_end=False) - earned(phrases, spoken)
    assert lent + 1e-5 >= 0 and (lent < most or lent == 0)
