"""Tuning: the search finds minima, calibration fits what the decoder then computes, only decoding settings change."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from asr.audio.manifest import Utterance, read
from asr.decoding.confidence import Confidence
from asr.decoding.greedy import GreedyDecoder
from asr.errors import ManifestError
from asr.evaluation import tune as module
from asr.evaluation.calibration import calibrate, record
from asr.evaluation.scoring import auroc
from asr.evaluation.tune import MARGIN_STEP, beam_decoder, coordinate_search, hear, silence_margin, word_error_rates
from asr.model.checkpoint import DecodingConfig

CLIPS = Path(__file__).parents[1] / "clips"


@pytest.fixture(scope="module")
def samples(recognizer):
    return hear(recognizer, read(CLIPS / "manifest.jsonl"))


def test_coordinate_search() -> None:
    """A bowl whose axes are not the coordinates: the search must come round more than once."""

    def loss(settings: DecodingConfig) -> float:
        x, y = settings.lm_weight - 3.1, settings.word_score + 1.5
        return x * x + y * y + x * y / 2 + 4 * (settings.prior_scale - 0.25) ** 2

    found = coordinate_search(DecodingConfig(), loss)
    assert (found.lm_weight, found.word_score) == (pytest.approx(3.1, abs=0.1), pytest.approx(-1.5, abs=0.1))
    assert found.prior_scale == pytest.approx(0.25, abs=0.025)
    assert dataclasses.replace(found, lm_weight=2.0, word_score=0.0, prior_scale=0.6) == DecodingConfig()


def test_coordinate_search_stays_possible() -> None:
    found = coordinate_search(DecodingConfig(), lambda settings: settings.lm_weight + settings.prior_scale)
    assert 0.1 <= found.lm_weight < 0.3 and found.prior_scale == 0.0


def test_emissions_are_those_of_the_recognizer(recognizer, samples) -> None:
    assert len(samples) == len(read(CLIPS / "manifest.jsonl"))
    assert {sample.corpus for sample in samples} == {"commonvoice1", "kathleen", "ljspeech"}
    sample = next(each for each in samples if each.reference == "there was nothing on the rock")
    words = recognizer.engine.decode(recognizer.engine.decoder(), sample.emissions)
    assert " ".join(word.text for word in words) == sample.reference


def test_settings_reach_the_decoder(recognizer, samples) -> None:
    settings = recognizer.engine.checkpoint.config.decoding
    few = [sample for sample in samples if sample.corpus == "kathleen"]
    assert word_error_rates(recognizer, beam_decoder(recognizer, settings), few)["kathleen"] < 0.2
    strange = beam_decoder(recognizer, dataclasses.replace(settings, word_score=-300.0))
    assert word_error_rates(recognizer, strange, few)["kathleen"] > 0.5
    # Building a tree costs more than decoding.
    assert strange.graph.tree is beam_decoder(recognizer, settings).graph.tree


def test_the_margin_keeps_what_was_said(recognizer, samples) -> None:
    """It is as large as the least sure utterance allows: a larger one takes that for silence."""
    decoder = beam_decoder(recognizer, dataclasses.replace(recognizer.engine.checkpoint.config.decoding, margin=0.0))
    margin = silence_margin(decoder, samples)
    usual = DecodingConfig().margin
    assert 0 < margin <= usual and margin % MARGIN_STEP == 0
    faint = dataclasses.replace(
        samples[0], emissions={head: 0.02 * each for head, each in samples[0].emissions.items()}
    )
    assert silence_margin(decoder, [*samples, faint]) < margin
    assert silence_margin(decoder, []) == usual  # nothing was heard, so nothing speaks against it


@pytest.mark.parametrize("beam", [True, False])
def test_words_have_their_own_features_and_the_decoder_stays(recognizer, samples, beam: bool) -> None:
    checkpoint = recognizer.engine.checkpoint
    decoder = beam_decoder(recognizer, DecodingConfig()) if beam else GreedyDecoder(checkpoint)
    decoder.confidence = before = Confidence(decoder.tokens, (), scores=beam)
    found = [each for sample in samples[:4] for each in record(decoder, sample.emissions)]
    expected = [word for sample in samples[:4] for word in decoder.decode(sample.emissions)]
    assert [word for word, _, _ in found] == expected and len(expected) > 10
    for word, features, confidence in found:
        assert word.confidence == confidence == math.exp(features[0])
    assert decoder.confidence is before


def test_calibration_is_what_the_decoder_computes(recognizer, samples) -> None:
    """The weights, put into a decoder, must part right words from wrong ones as the fit does."""
    fit = calibrate(GreedyDecoder(recognizer.engine.checkpoint), samples, "en")
    decoder = GreedyDecoder(recognizer.engine.checkpoint)
    decoder.confidence = Confidence(decoder.tokens, fit.weights, scores=False)
    words = [(word, sample) for sample in samples for word in decoder.decode(sample.emissions)]
    right = [word.text in sample.reference.split() for word, sample in words]
    sure = [word.confidence for word, _ in words]
    assert auroc(sure, right) > 0.75 and abs(np.mean(sure) - np.mean(right)) < 0.1
    assert 0.6 < fit.new[0] < 1 and fit.new[1] > 0


def test_too_little_to_fit(recognizer, samples) -> None:
    one = [sample for sample in samples if sample.reference == "there was nothing on the rock"]
    with pytest.raises(ManifestError, match="right words and wrong words"):
        calibrate(beam_decoder(recognizer, DecodingConfig()), one, "en")
    with pytest.raises(ManifestError, match="no utterance to tune on"):
        hear(recognizer, [Utterance(CLIPS / "kathleen-0.flac", 0, None, "chapter 2")])


def test_settings_are_found_where_confidences_cannot_be(recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HALVINGS", 0)
    said: list[str] = []
    tuning = module.tune(recognizer, read(CLIPS / "manifest.jsonl")[:1], say=said.append)
    old = recognizer.engine.checkpoint.config.decoding
    assert (tuning.decoding.lm_confidence, tuning.decoding.greedy_confidence) == (
        old.lm_confidence,
        old.greedy_confidence,
    )
    assert sum("stay as they were" in line and "Give more utterances" in line for line in said) == 2
    assert set(tuning.settings) >= set(module.STEPS) and len(tuning.error_rates) == 1 and not tuning.calibrations
