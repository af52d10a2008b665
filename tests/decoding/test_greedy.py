from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.decoding.greedy import GreedyDecoder
from asr.model.checkpoint import DecodingConfig
from asr.model.tokens import TokenSet

TOKENS = TokenSet(("-", " ", "a", "b", "c"), "-", " ", (0.2,) * 5)
CONFIG = SimpleNamespace(decoding=DecodingConfig(), tokens={"characters": TOKENS})
DECODER = GreedyDecoder(SimpleNamespace(config=CONFIG, seconds_per_frame=0.04))


def emissions(path: str, sure: float = 0.9) -> dict[str, np.ndarray]:
    """Log-probabilities whose best token is `path`, one character a frame."""
    probabilities = np.full((len(path), len(TOKENS)), (1 - sure) / (len(TOKENS) - 1), np.float32)
    probabilities[np.arange(len(path)), [TOKENS.symbols.index(symbol) for symbol in path]] = sure
    return {"characters": np.log(probabilities)}


@pytest.mark.parametrize(
    "path, text",
    [
        ("", ""),
        ("---", ""),
        ("   ", ""),
        ("a", "a"),
        ("aaa", "a"),
        ("a-a", "aa"),
        ("ab", "ab"),
        ("-a--b-", "ab"),
        ("a b", "a b"),
        ("a   b", "a b"),
        (" -ab- - c- ", "ab c"),
        ("aa-ab b", "aab b"),
        ("b b", "b b"),
    ],
)
def test_repeats_merge_blanks_go_boundaries_part(path, text):
    assert " ".join(word.text for word in DECODER.decode(emissions(path))) == text


def test_times_are_those_of_the_first_and_last_frame():
    words = DECODER.decode(emissions("--a-bb- -cc--"))
    assert [(w.text, round(w.start, 6), round(w.end, 6)) for w in words] == [("ab", 0.08, 0.24), ("c", 0.36, 0.44)]


def test_confidence_follows_the_posterior():
    (sure,), (unsure,) = DECODER.decode(emissions("ab ", 0.99)), DECODER.decode(emissions("ab ", 0.4))
    assert 0 <= unsure.confidence < 0.6 < 0.9 < sure.confidence <= 1


paths = st.text("- abc", max_size=30)


@given(path=paths, preview=paths, data=st.data())
def test_a_session_says_what_the_whole_says_for_any_split(path, preview, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(path)), max_size=5)))
    session, so_far = DECODER.session(), ""
    assert session.words(None) == []
    for start, end in zip([0, *cuts], [*cuts, len(path)], strict=True):
        session.accept(emissions(path[start:end]))
        so_far += path[start:end]
        for ahead in (preview, ""):
            got = session.words(emissions(ahead) if ahead else None)
            expected = DECODER.decode(emissions(so_far + ahead))
            assert [w.text for w in got] == [w.text for w in expected]
            np.testing.assert_allclose(
                [(w.start, w.end, w.confidence) for w in got],
                [(w.start, w.end, w.confidence) for w in expected],
                atol=1e-5,
            )


def test_words_settle_once_their_boundary_was_heard():
    session = DECODER.session()
    session.accept(emissions("ab ba"))
    session.accept(emissions("c a"))
    for end, expected in ((2, ""), (3, "ab"), (6, "ab"), (7, "ab bac"), (8, "ab bac")):
        assert " ".join(word.text for word in session.settled(end, None)) == expected


def test_a_session_keeps_only_what_is_not_complete():
    session = DECODER.session()
    for _ in range(200):
        session.accept(emissions("ab c- a"))
        assert sum(len(part["characters"]) for part in session.pending) <= 14
    assert len(session.words(None)) == 401
