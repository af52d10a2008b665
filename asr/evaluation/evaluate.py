"""How well a recognizer does on transcribed utterances: error rates, confidence and speed, for each corpus and overall.

Utterances are taken whole, as the manifest cuts them: neither pauses nor endpoints part them. WER is over `spoken`
text, with 95 % bootstrap intervals over utterances. The real-time factor (RTF) is wall time of features, model and
decoder over audio time; loading the model and reading files do not count.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.audio.manifest import Utterance, by_corpus, load
from asr.audio.reading import SAMPLE_RATE
from asr.errors import ManifestError
from asr.evaluation.scoring import align_words, auroc, bootstrap_interval, normalized_cross_entropy, score, spoken
from asr.inference.endpoint import EndpointRules
from asr.model.latency import Latency, LatencyLike
from asr.text.normalize import has_digits
from asr.text.results import Final, Word

if TYPE_CHECKING:
    from asr.inference.recognizer import Recognizer

UTTERANCES_IN_MEMORY = 256  # sorted by length for the model's batches
BLOCK_SAMPLES = 2560  # 160 ms, that a live stream is fed with
NEVER_S = 1e6
NO_ENDPOINTS = EndpointRules(NEVER_S, NEVER_S, NEVER_S, NEVER_S)
ALL = "all"

OnProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class Result:
    """One utterance: what was said and what was heard, both as they are scored."""

    reference: str
    words: tuple[Word, ...]
    seconds: float


@dataclass(frozen=True)
class Figures:
    """Rates are fractions; `auroc` and `nce` of the word confidences are nan where all words are right or wrong."""

    utterances: int
    seconds: float
    words: int
    substitutions: int
    deletions: int
    insertions: int
    wer: float
    wer_low: float
    wer_high: float
    cer: float
    cer_low: float
    cer_high: float
    rtf: float
    auroc: float
    nce: float


@dataclass(frozen=True)
class EvaluationReport:
    """Figures of each corpus and, under "all", of everything; `left_out` utterances have digits in their text."""

    corpora: dict[str, Figures]
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "left_out_for_digits": self.left_out,
            "corpora": {
                # JSON has no nan and no infinity
                name: {key: value if np.isfinite(value) else None for key, value in dataclasses.asdict(figures).items()}
                for name, figures in self.corpora.items()
            },
        }


def evaluate(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    latency: LatencyLike = "offline",
    streamed: bool = False,
    *,
    limit: int | None = None,
    on_progress: OnProgress = lambda corpus, seconds: None,
) -> EvaluationReport:
    """Score the utterances without digits in their text (of the others it is not known what was said).

    Args:
        streamed: feed each one to a live `Stream` in blocks of 160 ms, without second pass and endpoints: the accuracy
            of live text before a final. Else whole utterances go through the model in batches.
        limit: the most utterances of a corpus.
        on_progress: called with the corpus and seconds of audio that are done.

    Raises AudioError, and ManifestError where nothing can be scored.
    """
    settings = Latency.parse(latency)
    usable = scorable(utterances)
    if not usable:
        raise ManifestError("There is no utterance to score: give another manifest or split.")
    results: dict[str, list[Result]] = {}
    took: dict[str, float] = {}
    for corpus, members in scorable(utterances, limit).items():
        results[corpus], took[corpus] = [], 0.0
        step = 1 if streamed else UTTERANCES_IN_MEMORY
        for part in (members[i : i + step] for i in range(0, len(members), step)):
            signals = [load(utterance) for utterance in part]
            begin = time.perf_counter()
            heard_words = _live(recognizer, signals[0], settings) if streamed else _whole(recognizer, signals, settings)
            took[corpus] += time.perf_counter() - begin
            language = recognizer.engine.checkpoint.config.language
            results[corpus] += [
                Result(spoken(utterance.text, language), scored_words(words, language), len(signal) / SAMPLE_RATE)
                for utterance, words, signal in zip(part, heard_words, signals, strict=True)
            ]
            on_progress(corpus, sum(map(len, signals)) / SAMPLE_RATE)
    figures = {corpus: measure(results[corpus], took[corpus]) for corpus in results}
    everything = [result for corpus in results.values() for result in corpus]
    figures[ALL] = measure(everything, sum(took.values()))
    return EvaluationReport(figures, len(utterances) - sum(map(len, usable.values())))


def scorable(utterances: Sequence[Utterance], limit: int | None = None) -> dict[str, list[Utterance]]:
    """The utterances of each corpus without digits in their text, at most `limit`."""
    return by_corpus([utterance for utterance in utterances if not has_digits(utterance.text)], limit)


def _whole(recognizer: Recognizer, signals: Sequence[np.ndarray], latency: Latency) -> list[list[Word]]:
    engine = recognizer.engine
    mels = [engine.frontend(signal) for signal in signals]
    return engine.recognize(mels, latency, recognizer.hotwords)


def _live(recognizer: Recognizer, signal: np.ndarray, latency: Latency) -> list[list[Word]]:
    stream = recognizer.stream(latency=latency, two_pass=False, rules=NO_ENDPOINTS, punctuate=False)
    events = [
        event
        for first in range(0, len(signal), BLOCK_SAMPLES)
        for event in stream.accept(signal[first : first + BLOCK_SAMPLES])
    ]
    return [[word for event in events + stream.finish() if isinstance(event, Final) for word in event.words]]


def scored_words(words: Sequence[Word], language: str) -> tuple[Word, ...]:
    return tuple(replace(word, text=text) for word in words for text in spoken(word.text, language).split())


def measure(results: Sequence[Result], took: float) -> Figures:
    """`took` in seconds."""
    result = score(
        [each.reference for each in results], [" ".join(word.text for word in each.words) for each in results]
    )
    low, high = bootstrap_interval(result.utterance_errors, result.utterance_words)
    right = [ok for each in results for ok in align_words(each.reference.split(), each.words)]
    sure = [word.confidence for each in results for word in each.words]
    seconds = sum(each.seconds for each in results)
    return Figures(
        len(results),
        seconds,
        result.words,
        result.substitutions,
        result.deletions,
        result.insertions,
        result.wer,
        low,
        high,
        result.cer,
        *bootstrap_interval(result.utterance_character_errors, result.utterance_characters),
        took / seconds,
        *((auroc(sure, right), normalized_cross_entropy(sure, right)) if right else (np.nan, np.nan)),
    )
