"""The second judgment of final text, with hand-made models: what it changes, and what it leaves alone."""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from asr.decoding.hotwords import Hotword
from asr.decoding.rescoring import Rescorer
from asr.evaluation.tune import NEURAL_STEPS, Remembered, coordinate_search
from tests.decoding.test_beam import BeamDecoder, DecodingConfig, decoder, emissions, text

LIKELY, UNLIKELY = math.log(0.5), math.log(1e-6)


class Taste:
    """A neural model that likes some words after some others, and does not know a few; it counts its questions."""

    def __init__(self, *liked: tuple[str, str], unknown: Sequence[str] = ()) -> None:
        self.liked, self.unknown = liked, unknown
        self.asked: list[tuple[str, ...]] = []

    def score(self, sentences: Sequence[Sequence[str]]) -> list[list[float]]:
        self.asked += map(tuple, sentences)
        return [
            [
                float("nan") if word in self.unknown else LIKELY if (before, word) in self.liked else UNLIKELY
                for before, word in zip(["", *sentence], [*sentence, ""], strict=True)
            ]
            for sentence in sentences
        ]


class Flat:
    """An n-gram model to which everything is as likely as anything else."""

    def scores(self, words: Sequence[int]) -> list[float]:
        return [-1.0] * (len(words) + 1)


def judged(neural: Taste, share: float = 0.5, **options: float) -> BeamDecoder:
    found = decoder(neural_weight=share, **options)
    found.language_model.neural = neural
    config = SimpleNamespace(decoding=found.config, tokens={"phonemes": found.tokens})
    return BeamDecoder(SimpleNamespace(config=config, seconds_per_frame=0.04), found.language_model)


# --- scores


def test_scores_by_hand() -> None:
    """The first sentence is half a point ahead after the search; to the neural model the second is likelier."""
    neural = Taste(("", "no"), ("no", "dog"), ("dog", ""))
    rescorer = Rescorer(Flat(), neural, ["know", "no", "dog"], lm_weight=2.0, share=0.25)
    first, second = rescorer.scores([(0, 2), (1, 2)], [-10.0, -10.5])
    # 2.0 · (mixture − n-gram) of each word: the end is liked in both, "dog" only after "no"
    liked, disliked = (math.log10(0.75 * 0.1 + 0.25 * neural) + 1 for neural in (0.5, 1e-6))
    assert first == pytest.approx(-10 + 2 * (2 * disliked + liked))
    assert second == pytest.approx(-10.5 + 2 * 3 * liked)
    assert second > first


def test_hot_words_keep_their_score() -> None:
    hot, plain = (Rescorer(Flat(), Taste(), ["rill", "no"], lm_weight=1.0, share=1.0, hot=each) for each in ({0}, ()))
    assert hot.scores([(0, 1)], [0.0])[0] - plain.scores([(0, 1)], [0.0])[0] == pytest.approx(5)  # -1 instead of -6


def test_unknown_words_keep_their_score() -> None:
    rescorer = Rescorer(Flat(), Taste(unknown=["rill"]), ["rill", "no"], lm_weight=1.0, share=1.0)
    with_unknown, without = rescorer.scores([(0, 1), (1,)], [0.0, 0.0])
    assert with_unknown == pytest.approx(without)


# --- in the decoder


SAID = "T UW | D AA G |"  # "to", "too" and "two" sound alike, and are alike to the n-gram before "dog"


@pytest.mark.parametrize("said", ["too", "two", "to"])
def test_the_neural_model_chooses(said: str) -> None:
    assert text(judged(Taste(("", said))).decode(emissions(SAID))) == f"{said} dog"


def heard_cat() -> dict[str, np.ndarray]:
    """Rather "cat" than "cats", whose S is frame 5; silence or a second boundary follows."""
    heard = emissions("- K AE T - S/- | -/|")
    heard["phonemes"][5, 2:] -= 3.0
    return heard


def test_its_share_matters() -> None:
    """The sound speaks for "cat", the neural model for "cats"."""
    heard = heard_cat()
    neural = Taste(("", "cats"))
    assert text(decoder().decode(heard)) == "cat"
    assert text(judged(neural, 1.0).decode(heard)) == "cats"
    assert text(judged(neural, 0.1).decode(heard)) == "cat"


def test_words_times_and_confidence_are_of_the_chosen_sentence() -> None:
    heard = heard_cat()
    (cat,) = decoder().decode(heard)
    (cats,) = judged(Taste(("", "cats")), 1.0).decode(heard)
    assert (cat.text, cats.text) == ("cat", "cats")
    assert cats.start == cat.start and cats.end == pytest.approx(6 * 0.04) and cat.end == pytest.approx(4 * 0.04)
    assert cats.confidence < cat.confidence


def test_finals_are_judged_and_partials_are_not() -> None:
    neural = Taste(("", "cats"))
    session = judged(neural, 1.0).session()
    session.accept(heard_cat())
    assert text(session.words(None)) == "cat" and not neural.asked
    assert text(session.finish()) == "cats" and len(neural.asked) == 2  # others are too far behind
    assert len(set(neural.asked)) == len(neural.asked)  # no sentence twice


def test_at_most_nbest_sentences_are_judged() -> None:
    neural = Taste(("", "too"))
    judged(neural, nbest=2).decode(emissions(SAID))
    assert len(neural.asked) == 2


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_off_without_a_share_and_without_a_choice(share: float) -> None:
    neural = Taste(("", "too"))
    judged(neural, share, nbest=1).decode(emissions(SAID))
    assert not neural.asked
    assert decoder(neural_weight=share).rescorer is None


def test_hot_words_keep_their_bonus() -> None:
    """A large one outweighs what the neural model likes better, a small one does not."""
    for bonus, said in ((8.0, "too dog"), (1.0, "two dog")):
        hot = decoder([Hotword(("too",), bonus)])
        hot.rescorer = Rescorer(hot.language_model, Taste(("", "two")), hot.words, 2.0, 0.95)
        assert text(hot.decode(emissions(SAID))) == said


def test_share_is_checked() -> None:
    with pytest.raises(ValueError, match="neural_weight"):
        DecodingConfig(neural_weight=1.5)


# --- tuning


def test_tuning_asks_about_a_sentence_once() -> None:
    neural = Taste(("", "a"), unknown=["b"])
    remembered = Remembered(neural)
    asked = [["a", "c"], ["c"], ["a", "c"]]
    expected = Taste(("", "a"), unknown=["b"]).score(asked)
    assert remembered.score(asked) == expected and remembered.score(asked) == expected
    assert len(neural.asked) == 2


def test_the_share_is_tuned_within_its_bounds() -> None:
    found = coordinate_search(DecodingConfig(neural_weight=0.4), lambda c: -c.neural_weight, NEURAL_STEPS)
    assert found.neural_weight == 1.0
    found = coordinate_search(DecodingConfig(neural_weight=0.4), lambda c: abs(c.neural_weight - 0.25), NEURAL_STEPS)
    assert found.neural_weight == pytest.approx(0.25, abs=0.051)
