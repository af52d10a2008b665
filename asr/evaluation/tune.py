"""Decoding settings and confidence weights of a checkpoint, found on transcribed utterances that it was not trained on.

First the language model's weight, the score of a word, the scale of the label priors and, where there is one, the share
of the neural language model, by coordinate search for the least word error rate, averaged over corpora. Then the margin
by which words must beat silence: as large as speech allows, since it keeps noise out. Then the weights of both
confidences, of beam search and greedy text, by logistic regression over right and wrong words. The model runs once; its
emissions are kept and decoded many times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from asr.audio.manifest import Utterance, load
from asr.decoding.beam import BeamDecoder, LanguageModel
from asr.decoding.decoder import Decoder
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.rescoring import Neural
from asr.errors import ManifestError
from asr.evaluation.calibration import Calibration, Sample, calibrate
from asr.evaluation.evaluate import scorable, scored_words
from asr.evaluation.scoring import score, spoken
from asr.inference.engine import BATCH_UTTERANCES
from asr.inference.recognizer import Recognizer
from asr.model.checkpoint import DecodingConfig
from asr.model.latency import PRESETS

STEPS = {"lm_weight": 0.4, "word_score": 0.4, "prior_scale": 0.1}  # of the search; natural logarithms, and α
NEURAL_STEPS = {"neural_weight": 0.2}  # where there is a neural language model
MIN_VALUES = {"lm_weight": 0.1, "word_score": -np.inf, "prior_scale": 0.0, "neural_weight": 0.0}
MAX_VALUES = {"neural_weight": 1.0}
HALVINGS = 2  # of the steps, once none of them helps
LOST = 1 / 300  # of the utterances may fall behind silence for the margin that keeps noise out
MARGIN_STEP = 0.5  # natural logarithm, a word

Say = Callable[[str], None]


@dataclass
class Tuning:
    """New decoding settings, and what they are worth: pairs hold the old value and the new one."""

    decoding: DecodingConfig
    settings: dict[str, tuple[float, float]] = field(default_factory=dict)
    error_rates: dict[str, tuple[float, float]] = field(default_factory=dict)  # WER of each corpus, a fraction
    calibrations: dict[str, Calibration] = field(default_factory=dict)  # by search: "language model", "greedy"


def hear(recognizer: Recognizer, utterances: Sequence[Utterance], limit: int | None = None) -> list[Sample]:
    """Emissions, with full context, of the utterances without digits in their text; at most `limit` of each corpus.

    Raises ManifestError and AudioError.
    """
    chosen = scorable(utterances, limit)
    everything = [(corpus, utterance) for corpus, members in chosen.items() for utterance in members]
    if not everything:
        raise ManifestError("There is no utterance to tune on: give another manifest or split.")
    everything.sort(key=lambda each: each[1].samples or 0)  # batches of like lengths
    language = recognizer.engine.checkpoint.config.language
    samples: list[Sample] = []
    for first in range(0, len(everything), BATCH_UTTERANCES):
        mels = [
            (corpus, utterance, recognizer.engine.frontend(load(utterance)))
            for corpus, utterance in everything[first : first + BATCH_UTTERANCES]
        ]
        batch = [each for each in mels if len(each[2])]
        found = recognizer.engine.emissions([mel for _, _, mel in batch], PRESETS["offline"]) if batch else []
        samples += [
            Sample(
                corpus,
                utterance.speaker or f"{utterance.path} {utterance.start}",
                spoken(utterance.text, language),
                emissions,
            )
            for (corpus, utterance, _), emissions in zip(batch, found, strict=True)
        ]
    return samples


def beam_decoder(
    recognizer: Recognizer, settings: DecodingConfig, language_model: LanguageModel | None = None
) -> BeamDecoder:
    """A decoder of these settings over the recognizer's language model and prefix tree, or another like it."""
    checkpoint = recognizer.engine.checkpoint
    chosen = language_model or recognizer.engine.language_model
    assert chosen
    return BeamDecoder(replace(checkpoint, config=replace(checkpoint.config, decoding=settings)), chosen)


def word_error_rates(recognizer: Recognizer, decoder: Decoder, samples: Sequence[Sample]) -> dict[str, float]:
    """WER of each corpus."""
    language = recognizer.engine.checkpoint.config.language
    pairs: dict[str, list[tuple[str, str]]] = {}
    for sample in samples:
        words = scored_words(recognizer.engine.decode(decoder, sample.emissions), language)
        pairs.setdefault(sample.corpus, []).append((sample.reference, " ".join(word.text for word in words)))
    return {corpus: score(*zip(*members, strict=True)).wer for corpus, members in pairs.items()}


def silence_margin(decoder: BeamDecoder, samples: Sequence[Sample]) -> float:
    """The largest margin by which the words of all but `LOST` of the utterances beat silence; no more than usual."""
    ahead = []
    for sample in samples:
        search = decoder.search(decoder.config.beam)
        search.accept(sample.emissions[decoder.head])
        best = search.best()
        if words := int((best.labels >= 0).sum()):
            ahead.append(search.evidence(best) / words)
    least = float(np.quantile(ahead or [DecodingConfig.margin], LOST, method="lower"))
    return float(np.clip(least // MARGIN_STEP * MARGIN_STEP, 0.0, DecodingConfig.margin))


class Remembered:
    """A neural language model that is asked about most sentences many times."""

    def __init__(self, model: Neural) -> None:
        self.model = model
        self.known: dict[tuple[str, ...], list[float]] = {}

    def score(self, sentences: Sequence[Sequence[str]]) -> list[list[float]]:
        asked = [tuple(sentence) for sentence in sentences]
        new = [sentence for sentence in dict.fromkeys(asked) if sentence not in self.known]
        self.known.update(zip(new, self.model.score(new) if new else [], strict=True))
        return [self.known[sentence] for sentence in asked]


def coordinate_search(
    start: DecodingConfig, loss: Callable[[DecodingConfig], float], steps: Mapping[str, float] = STEPS
) -> DecodingConfig:
    """The settings of `steps` moved one at a time as long as the loss falls, then by half steps."""
    best = start
    for halving in range(HALVINGS + 1):
        before = None
        while before != best:
            before = best
            for name, step in steps.items():
                for move in (step / 2**halving, -step / 2**halving):
                    low, high = MIN_VALUES[name], MAX_VALUES.get(name, np.inf)
                    while low <= (value := round(getattr(best, name) + move, 3)) <= high:
                        candidate = replace(best, **{name: value})
                        if loss(candidate) >= loss(best):
                            break
                        best = candidate
    return best


def tune(
    recognizer: Recognizer, utterances: Sequence[Utterance], limit: int | None = None, say: Say = lambda line: None
) -> Tuning:
    """New decoding settings, beside the old ones. Without a language model only greedy confidence is fitted.

    The new error rates are those of the data that the settings were chosen on, so they are a little too good.
    Raises ManifestError and AudioError.
    """
    samples = hear(recognizer, utterances, limit)
    say(f"{len(samples)} utterances heard.")
    language = recognizer.engine.checkpoint.config.language
    old = recognizer.engine.checkpoint.config.decoding
    tuning = Tuning(old)
    if recognizer.engine.language_model:
        language_model, steps = copy(recognizer.engine.language_model), STEPS
        if language_model.neural:
            language_model.neural, steps = Remembered(language_model.neural), STEPS | NEURAL_STEPS

        @cache
        def rates(settings: DecodingConfig) -> dict[str, float]:
            found = word_error_rates(recognizer, beam_decoder(recognizer, settings, language_model), samples)
            say(
                ", ".join(f"{name} {getattr(settings, name):g}" for name in steps)
                + f": WER {100 * float(np.mean(list(found.values()))):.2f} %"
            )
            return found

        start = replace(old, lm_confidence=())  # no word depends on them, and they may be for other features
        free = replace(start, margin=0.0)  # what the old margin takes for silence must not sway the others
        found = coordinate_search(free, lambda settings: float(np.mean(list(rates(settings).values()))), steps)
        found = replace(found, margin=silence_margin(beam_decoder(recognizer, found, language_model), samples))
        tuning.settings = {name: (getattr(old, name), getattr(found, name)) for name in [*steps, "margin"]}
        tuning.error_rates = {corpus: (rate, rates(found)[corpus]) for corpus, rate in rates(start).items()}
        decoder = beam_decoder(recognizer, replace(found, lm_confidence=old.lm_confidence))
        fitted = _fit("language model", decoder, samples, language, tuning, say)
        tuning.decoding = replace(found, lm_confidence=fitted or old.lm_confidence)
    fitted = _fit("greedy", GreedyDecoder(recognizer.engine.checkpoint), samples, language, tuning, say)
    tuning.decoding = replace(tuning.decoding, greedy_confidence=fitted or old.greedy_confidence)
    return tuning


def _fit(
    name: str, decoder: BeamDecoder | GreedyDecoder, samples: Sequence[Sample], language: str, tuning: Tuning, say: Say
) -> tuple[float, ...] | None:
    """New weights of a decoder's confidence; None where there is too little to fit them to, which must not cost the
    settings that were found."""
    try:
        fit = calibrate(decoder, samples, language)
    except ManifestError as error:
        say(f"Word confidences ({name}) stay as they were: {error}")
        return None
    tuning.calibrations[name] = fit
    return fit.weights
