from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asr.text.labels import CAPITAL, COMMA, LOWER, NONE, PERIOD, QUESTION
from asr.text.punctuator import Punctuator, PunctuatorConfig, Tag
from asr.text.results import PARAGRAPH_PAUSE_S, Final, Transcript, Word
from asr.text.sentences import CONTEXT, LONGEST_S, Sentences, pauses, segments

MARKS = {",": COMMA, ".": PERIOD, "?": QUESTION}


class Told(Punctuator):
    """Writes each word as its text says: "Ann." is Ann with a period; remembers what it was shown."""

    def __init__(self) -> None:
        self.config = PunctuatorConfig("en", [], 0, 0, 0, 0)
        self.seen: list[list[str]] = []
        self.last_pauses: list[float] = []

    def tag(self, words, pauses=None):
        self.seen.append(list(words))
        assert pauses is None or len(pauses) == len(words)
        self.last_pauses.append(pauses[-1])
        return [Tag(MARKS.get(word[-1], NONE), CAPITAL if word[0].isupper() else LOWER) for word in words]

    def write(self, word, tag, first=False):
        return word[:1].upper() + word[1:] if first else word


def words(text: str, start: float = 0.0, gap: float = 0.1) -> list[Word]:
    """Of 0.4 s each; "|" is a pause of one second more."""
    found, now = [], start
    for token in text.split():
        if token == "|":
            now += 1.0
            continue
        found.append(Word(token, now, now + 0.4, 0.9))
        now += 0.4 + gap
    return found


def text_of(written) -> str:
    return " ".join(word.display for word in written)


def test_live_finals_go_on_where_the_last_one_stopped():
    sentences = Sentences(Told())
    assert text_of(sentences.write(words("and so my fellow"))) == "And so my fellow"
    assert text_of(sentences.write(words("americans, ask not. what", 10))) == "americans, ask not. What"
    assert text_of(sentences.write(words("then? yes", 20))) == "then? Yes"
    assert sentences.write([]) == []


def test_the_tagger_hears_how_long_a_speaker_has_been_silent():
    told = Told()
    sentences = Sentences(told)
    sentences.write(words("and so"), silence=0.3)
    sentences.write(words("my fellow americans", 10), silence=0.8)
    sentences.write(words("ask not", 20))
    assert told.last_pauses[:2] == [0.3, 0.8]
    assert np.isnan(told.last_pauses[2])


def test_raw_words_and_times_stay():
    before = words("and so on.")
    after = Sentences(Told()).write(before)
    assert [(word.text, word.start, word.end, word.confidence) for word in after] == [
        (word.text, word.start, word.end, word.confidence) for word in before
    ]


def test_the_tagger_sees_the_words_before_and_no_more():
    told = Told()
    sentences = Sentences(told)
    sentences.write(words("a " * (CONTEXT + 20)))
    sentences.write(words("b c", 1000))
    assert told.seen[-1] == ["a"] * CONTEXT + ["b", "c"]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=12), st.integers(0, 9))
def test_a_recordings_words_wait_for_what_follows_and_none_is_lost(sizes, look_ahead):
    told = Told()
    sentences = Sentences(told)
    spoken = words(" ".join(f"w{number}" for number in range(sum(sizes))))
    written, at = [], 0
    for size in sizes:
        new = sentences.write(spoken[at : at + size], look_ahead)
        at += size
        written += new
        assert len(written) == max(0, at - look_ahead)
    written += sentences.write([])
    assert [word.text for word in written] == [word.text for word in spoken]


def test_pauses():
    assert np.allclose(pauses(words("a | b c"))[:2], [1.1, 0.1])
    assert np.isnan(pauses(words("a b"))[-1])
    assert pauses(words("a b"), 0.3)[-1] == 0.3
    assert len(pauses([])) == 0
    overlapping = [Word("a", 0, 1.0, 1), Word("b", 0.9, 1.5, 1)]
    assert pauses(overlapping)[0] == 0


def parts(text: str, punctuated: bool = True) -> list[str]:
    said = [
        Word(word.text.strip(",.?"), word.start, word.end, 0.9, word.text if punctuated else None)
        for word in words(text)
    ]
    return [segment.text for segment in segments(said, punctuated)]


def test_raw_segments_end_at_pauses():
    assert parts("a b | c d", punctuated=False) == ["a b", "c d"]


def test_segments_end_with_sentences_not_at_short_pauses():
    assert parts("So | I said. | Then we left.") == ["So I said.", "Then we left."]
    assert parts("Yes. I know. | Good.") == ["Yes. I know.", "Good."]
    assert parts("so | | | on") == ["so", "on"]


def test_long_segments_end_with_sentences_then_clauses_then_anywhere():
    assert parts("w " * 12 + "one. two") == ["w " * 12 + "one.", "two"]
    assert parts("w " * 35 + "one, two") == ["w " * 35 + "one,", "two"]
    endless = segments([Word("w", at, at + 0.9, 0.9, "w") for at in range(200)], punctuated=True)
    assert max(segment.end - segment.start for segment in endless) <= LONGEST_S + 1


@given(st.text("w.,|", min_size=1, max_size=60), st.integers(1, 59))
def test_only_the_last_segment_may_go_on(pattern, at):
    said, now = [], 0.0
    for sign in pattern:
        said.append(Word("w", round(now, 3), round(now + 0.3, 3), 0.9, f"w{sign.strip('w|')}"))
        now += 1.3 if sign == "|" else 0.4
    first, whole = segments(said[:at], True), segments(said, True)
    assert whole[: max(0, len(first) - 1)] == first[:-1]
    assert [word for segment in whole for word in segment.words] == said
    assert all(segment.words for segment in whole)
    assert all(before.end <= after.start for before, after in pairwise(whole))


def written(text: str, start: float) -> Final:
    return Final.of([Word(word.text, word.start, word.end, 0.9, word.text) for word in words(text, start)], True)


def test_paragraphs_part_at_long_pauses():
    first, second = written("One. Two.", 0.0), written("Three.", 2.0)
    third = written("Four.", second.end + PARAGRAPH_PAUSE_S)
    assert Transcript((first, second, third), 9.0).text == "One. Two. Three.\n\nFour."
    long = [written("Word " * 100 + "end.", 100.0 * at) for at in range(3)]
    assert Transcript(tuple(Final.of(f.words, True) for f in long), 300.0).text.count("\n\n") == 2
