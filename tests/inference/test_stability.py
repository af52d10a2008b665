"""Words of partials are shown once they stand still."""

from asr.inference.stability import StablePartials
from asr.text.results import Word


def words(text, confidence=0.5, shift=0.0):
    return [Word(word, i + shift, i + 0.5 + shift, confidence) for i, word in enumerate(text.split())]


def shown(*hypotheses):
    partials, found = StablePartials(), []
    for hypothesis in hypotheses:
        partials.update(hypothesis)
        found.append(" ".join(word.text for word in partials.words))
    return found


def test_a_word_is_shown_when_it_was_repeated_twice():
    assert shown(*[words("good")] * 4) == ["", "", "good", "good"]


def test_a_sure_word_once():
    assert shown(*[words("good", 0.9)] * 3) == ["", "good", "good"]


def test_a_changed_word_starts_again_and_hides_nothing_before_it():
    assert shown(words("good day"), words("good day"), words("good date"), words("good date"), words("good date")) == [
        "",
        "",
        "good",
        "good",
        "good date",
    ]


def test_an_early_change_hides_nothing_after_it():
    assert shown(*[words("good day")] * 3, words("could day"))[-1] == "could day"


def test_the_same_word_elsewhere_is_another():
    assert shown(words("go"), words("go", shift=0.3), words("go", shift=0.6)) == ["", "", ""]
    assert shown(words("go"), words("go", shift=0.1), words("go", shift=0.2))[-1] == "go"


def test_firm_words_are_shown_at_once_and_make_a_partial():
    partials = StablePartials()
    partials.update(words("good day"), firm=1)
    assert [(partial.text, partial.stable) for partial in partials.changed(0.0)] == [("good", 1)]
    for _ in range(2):
        partials.update(words("good day"), firm=1)
    partials.changed(0.0)
    partials.update(words("good day"), firm=2)
    assert [(partial.text, partial.stable) for partial in partials.changed(0.0)] == [("good day", 2)]


def test_nothing():
    assert shown([], []) == ["", ""]


def test_a_partial_comes_when_its_text_has_changed():
    partials, found = StablePartials(), []
    for hypothesis in [words("good", 0.9)] * 3 + [words("good day", 0.9)] * 2 + [[]]:
        partials.update(hypothesis)
        found.append(
            [
                (partial.text, partial.start, partial.words[0].start if partial.words else None)
                for partial in partials.changed(start=7.0)
            ]
        )
    assert found == [[], [("good", 7.0, 7.0)], [], [], [("good day", 7.0, 7.0)], [("", 7.0, None)]]
