"""Words of partials are shown once they stand still."""
from asr.inference.stability import Stability
from asr.text.results import Word


def words(text, confidence=0.5, shift=0.0):
    return [Word(word, i + shift, i + 0.5 + shift, confidence) for i, word in enumerate(text.split())]


def shown(*hypotheses):
    stability = Stability()
    return [" ".join(word.text for word in stability.shown(hypothesis)) for hypothesis in hypotheses]


def test_a_word_is_shown_when_it_was_repeated_twice():
    assert shown(*[words("good")] * 4) == ["", "", "good", "good"]


def test_a_sure_word_once():
    assert shown(*[words("good", 0.9)] * 3) == ["", "good", "good"]


def test_a_changed_word_starts_again_and_hides_nothing_before_it():
    assert shown(words("good day"), words("good day"), words("good date"), words("good date"), words("good date")) == [
        "", "", "good", "good", "good date"]


def test_an_early_change_hides_nothing_after_it():
    assert shown(*[words("good day")] * 3, words("could day"))[-1] == "could day"


def test_the_same_word_elsewhere_is_another():
    assert shown(words("go"), words("go", shift=0.3), words("go", shift=0.6)) == ["", "", ""]
    assert shown(words("go"), words("go", shift=0.1), words("go", shift=0.2))[-1] == "go"


def test_nothing():
    assert shown([], []) == ["", ""]
