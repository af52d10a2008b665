import pytest

from asr.evaluation.punctuation import Counts, Scores, aligned
from asr.text.labels import CAPITAL, COMMA, LOWER, MIXED, NONE, PERIOD, label
from asr.text.punctuator import Punctuator, PunctuatorConfig, Tag


class Told(Punctuator):
    """Tags as it was told to."""

    def __init__(self, *tags: tuple[int, int]) -> None:
        self.config = PunctuatorConfig("en", [], 0, 0, 0, 0, forms={"iphone": "iPhone"}, abbreviations={"dr": "Dr."})
        self.tags = [Tag(*each) for each in tags]

    def tag(self, words, pauses=None):
        return self.tags


def test_scores():
    reference = label(["So, Dr. Ann left. Her iPhone rang."], "en", {"dr": "Dr."})
    scores = Scores()
    scores.add(
        Told(
            (NONE, LOWER),
            (NONE, CAPITAL),
            (NONE, CAPITAL),
            (PERIOD, LOWER),
            (NONE, LOWER),
            (COMMA, MIXED),
            (PERIOD, CAPITAL),
        ),
        reference,
    )
    assert scores.words == 7
    kinds = scores.kinds
    assert kinds["period"] == Counts(2, 2, 2)
    assert kinds["comma"] == Counts(1, 1, 0)
    assert kinds["capital"] == Counts(5, 6, 5)
    assert (kinds["period"].f1, kinds["comma"].f1, kinds["question mark"].f1) == (1, 0, 0)
    assert kinds["capital"].f1 == pytest.approx(10 / 11)


def test_texts_are_judged_together():
    one, other = Scores(), Scores()
    one.add(Told((NONE, CAPITAL), (PERIOD, LOWER)), label(["Ann left."], "en", {}))
    other.add(Told((COMMA, LOWER), (NONE, LOWER), (PERIOD, LOWER)), label(["So, she left."], "en", {}))
    one.include(other)
    assert one.words == 5
    assert one.kinds["period"] == Counts(2, 2, 2)
    assert one.kinds["comma"] == Counts(1, 1, 1)
    assert other.kinds["period"] == Counts(1, 1, 1)


def test_what_semicolons_and_quotation_marks_decide_is_not_judged():
    reference = label(['She left; he asked, "Who Knows?"'], "en", {})
    scores = Scores()
    scores.add(Told((NONE, LOWER), (PERIOD, LOWER), *[(NONE, LOWER)] * 4), reference)
    assert scores.kinds["period"] == Counts(1, 1, 1)
    assert scores.kinds["capital"] == Counts(2, 1, 1)  # "She" is right, "Knows" is missed; neither "he" nor "Who"


def test_labels_at_recognized_words():
    reference = label(["So, Ann left Paris. He did."], "en", {})
    found = aligned(reference, ["so", "an", "left", "he", "did"])
    assert found.words == ["so", "an", "left", "he", "did"]
    assert found.marks == [COMMA, NONE, PERIOD, NONE, PERIOD]
    assert found.forms == ["So", "", "left", "He", "did"]
    inserted = aligned(reference, ["so", "ann", "then", "left", "paris", "he", "did"])
    assert inserted.marks == [COMMA, NONE, NONE, NONE, PERIOD, NONE, PERIOD]
    assert aligned(reference, []).words == []
