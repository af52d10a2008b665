"""A `Recognizer` transcribes recordings and opens live streams, all with the same model.

    samples → Resampler → frontend → acoustic model → decoder → Partial / Final

Files, microphones, browsers and sockets feed the same `Stream`. A recording is cut where it is quietest, and each
segment is decoded with full context: the highest latency of the same engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asr.audio import reading
from asr.audio.segmenter import Segmenter
from asr.decoding.decoder import shift_all
from asr.decoding.hotwords import Hotword
from asr.errors import AudioError
from asr.inference.endpoint import EndpointRules
from asr.inference.engine import Engine, Hotwords, Recognition
from asr.inference.runner import InlineRunner, ModelRunner
from asr.inference.stream import Event, Stream
from asr.model.latency import Latency, LatencyLike
from asr.text.results import Alternative, Final, Transcript, Word
from asr.text.sentences import LOOK_AHEAD, Sentences, segments

__all__ = ["Event", "Recognizer", "Stream", "load"]

FIRST_GROUP, LARGEST_GROUP = 2, 16  # segments of a file that are sorted by length and batched
FILE_BLOCK_S = 10.0  # of a file that is decoded and turned to features at a time


class Recognizer:
    """Transcribes recordings and opens live streams; `asr.load` makes one.

    It never changes, so any number of threads may use it at once. `latency` is that of its streams, `hotwords` and
    `rules` are those of all its work. `runner` runs the model for its streams. With `punctuate`, text is written as
    sentences where the checkpoint has a tagger for it; each call may choose otherwise.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        latency: LatencyLike = "balanced",
        hotwords: Hotwords = (),
        rules: EndpointRules | None = None,
        runner: ModelRunner | None = None,
        punctuate: bool = True,
    ) -> None:
        self.engine = engine
        self.latency = Latency.parse(latency)
        self.hotwords = self.prepare_hotwords(hotwords)
        self.rules = rules or EndpointRules()
        self.punctuate = punctuate
        self._runner = runner or InlineRunner(engine)

    def with_runner(self, runner: ModelRunner) -> Recognizer:
        """A recognizer with the same engine and settings whose streams share another runner."""
        return Recognizer(
            self.engine,
            latency=self.latency,
            hotwords=self.hotwords,
            rules=self.rules,
            runner=runner,
            punctuate=self.punctuate,
        )

    def expecting(self, hotwords: Hotwords) -> Recognizer:
        """A recognizer with the same engine and settings that expects these hot words, too. Raises HotwordError."""
        return Recognizer(
            self.engine,
            latency=self.latency,
            hotwords=(*self.hotwords, *self.engine.parse_hotwords(hotwords)),
            rules=self.rules,
            runner=self._runner,
            punctuate=self.punctuate,
        )

    def prepare_hotwords(self, hotwords: Hotwords) -> tuple[Hotword, ...]:
        """Parses hot words and builds their search, so that a stream finds it ready. Raises HotwordError."""
        chosen = self.engine.parse_hotwords(hotwords)
        self.engine.decoder(chosen)
        return chosen

    def stream(
        self,
        sample_rate: float = reading.SAMPLE_RATE,
        *,
        latency: LatencyLike | None = None,
        hotwords: Hotwords | None = None,
        two_pass: bool = True,
        rules: EndpointRules | None = None,
        punctuate: bool | None = None,
        alternatives: int = 0,
    ) -> Stream:
        """A stream for one speaker, fed at `sample_rate` Hz; settings that are not given are the recognizer's.

        Finals have at most so many `alternatives`, their own sentence first; fewer where none is nearly as likely.
        Without `two_pass` a final is the last partial: what was committed at this latency. Partials are raw. Raises
        AudioError for a rate that cannot be used, HotwordError, and ValueError for full context.
        """
        return Stream(
            self.engine,
            self._runner,
            sample_rate,
            self.latency if latency is None else Latency.parse(latency),
            self.hotwords if hotwords is None else self.engine.parse_hotwords(hotwords),
            two_pass,
            rules or self.rules,
            self._sentences(punctuate),
            alternatives,
        )

    def transcribe(
        self,
        source: reading.Source,
        *,
        sample_rate: float | None = None,
        latency: LatencyLike = "offline",
        punctuate: bool | None = None,
        alternatives: int = 0,
    ) -> Transcript:
        """A file, a binary stream or an array with its rate, as a whole. Raises AudioError.

        With `alternatives` each segment has at most so many, its own sentence first; fewer where none is nearly as
        likely. A segment is then what was recognized at once: at most 20 s, which end where it is quiet.
        """
        found: list[Final] = []
        seconds = 0.0
        for seconds, new in self.transcribe_parts(  # noqa: B007
            source, sample_rate=sample_rate, latency=latency, punctuate=punctuate, alternatives=alternatives
        ):
            found += new
        return Transcript(tuple(found), seconds)

    def transcribe_parts(
        self,
        source: reading.Source,
        *,
        sample_rate: float | None = None,
        latency: LatencyLike = "offline",
        punctuate: bool | None = None,
        alternatives: int = 0,
    ) -> Iterator[tuple[float, list[Final]]]:
        """As `transcribe`, in parts: (seconds read so far, segments that became known). Memory does not grow.

        The recording is read on while the engine's threads recognize what was read before.
        """
        settings = Latency.parse(latency)
        features = self.engine.frontend.stream()
        config = self.engine.frontend.config
        segmenter = Segmenter(config.hop, config.sample_rate)
        sentences = self._sentences(punctuate)
        joined = _WithAlternatives(sentences) if alternatives else _Joined(sentences)
        count = max(1, alternatives)
        waiting: list[np.ndarray] = []
        under_way: _Group | None = None
        position = samples = 0
        group = FIRST_GROUP  # small, so that text appears soon
        try:
            for block in reading.read_blocks(source, sample_rate=sample_rate, block_seconds=FILE_BLOCK_S):
                samples += len(block)
                waiting += segmenter.push(block, features.accept(block))
                before = under_way
                if len(waiting) >= group:
                    group = min(2 * group, LARGEST_GROUP)
                    under_way, position, waiting = *self._begin(waiting, position, settings, count), []
                elif before and before.recognition.done():
                    under_way = None
                if before and before is not under_way:
                    yield samples / config.sample_rate, joined.add(before.sentences())
        except AudioError:  # what was read until then is text all the same
            if under_way:
                yield samples / config.sample_rate, joined.add(under_way.sentences())
            raise
        else:
            last, _ = self._begin([*waiting, *segmenter.flush()], position, settings, count)
            found = [*(under_way.sentences() if under_way else []), *last.sentences()]
            yield samples / config.sample_rate, joined.add(found, last=True)
        finally:
            if under_way:  # nobody wants it any more, or it is done
                under_way.recognition.cancel()

    def _begin(self, parts: Sequence[np.ndarray], position: int, latency: Latency, n: int) -> tuple[_Group, int]:
        """Adjoining parts of mel frames, the first at mel frame `position`, of which the engine now finds at most `n`
        sentences each while the recording is read on, and the position behind them."""
        rate = self.engine.frontend.seconds_per_frame
        starts = np.cumsum([position, *map(len, parts)])
        group = _Group(self.engine.recognize_later(parts, latency, self.hotwords, n), (rate * starts[:-1]).tolist())
        return group, int(starts[-1])

    def _sentences(self, punctuate: bool | None) -> Sentences | None:
        """What writes one speaker's, or one recording's, words as sentences; None where they stay raw."""
        wanted = self.punctuate if punctuate is None else punctuate
        return Sentences(self.engine.punctuator) if wanted and self.engine.punctuator else None

    def decode_utterance(self, samples: np.ndarray, latency: LatencyLike = "offline") -> Final:
        """One utterance of samples at 16 kHz, as for `Stream.accept`, as it is: no segments, no endpoints. Raises
        AudioError."""
        mel = self.engine.frontend(reading.to_mono(samples))
        (words,) = self.engine.recognize([mel], Latency.parse(latency), self.hotwords)
        return Final.of(words)


@dataclass(frozen=True)
class _Group:
    """Adjoining segments of a recording that are being recognized, and the seconds at which each starts."""

    recognition: Recognition
    starts: Sequence[float]

    def sentences(self) -> list[list[Alternative]]:
        found = self.recognition.result()
        return [shift_all(each, start) for each, start in zip(found, self.starts, strict=True)]


class _Joined:
    """A recording's words as segments: raw ones end at pauses and where the recording was cut; sentences cross the
    cuts, and segments end with them."""

    def __init__(self, sentences: Sentences | None) -> None:
        self.sentences = sentences
        self.open: list[Word] = []  # of the last segment, which may go on

    def add(self, parts: Sequence[Sequence[Alternative]], last: bool = False) -> list[Final]:
        """The segments that the best sentences of these parts complete; at the end of the recording, all that are
        left."""
        said = [found[0].words for found in parts if found]
        if not self.sentences:
            return [segment for words in said for segment in segments(words, punctuated=False)]
        written = self.sentences.write([word for words in said for word in words], 0 if last else LOOK_AHEAD)
        found = segments([*self.open, *written], punctuated=True)
        self.open = [] if last or not found else list(found[-1].words)
        return found if last else found[:-1]


class _WithAlternatives:
    """A recording's sentences as segments that are each one part of it, with what else may have been said there."""

    def __init__(self, sentences: Sentences | None) -> None:
        self.sentences = sentences
        self.waiting: list[list[Alternative]] = []  # until their words are written
        self.written: list[Word] = []

    def add(self, parts: Sequence[list[Alternative]], last: bool = False) -> list[Final]:
        """The segments of these parts, and of those before, whose words are written; at the end, all of them."""
        said = [found for found in parts if found and found[0].words]
        words = [word for found in said for word in found[0].words]
        self.waiting += said
        self.written += self.sentences.write(words, 0 if last else LOOK_AHEAD) if self.sentences else words
        segments = []
        while self.waiting and len(self.waiting[0][0].words) <= len(self.written):
            found = self.waiting.pop(0)
            count = len(found[0].words)
            segments.append(Final.of(self.written[:count], self.sentences is not None, found))
            self.written = self.written[count:]
        return segments


def load(
    name: str | os.PathLike[str] | None = None,
    *,
    latency: LatencyLike = "balanced",
    hotwords: Hotwords = (),
    lm: bool = True,
    device: str = "auto",
    engine: str = "auto",
    int8: bool | None = False,
    rules: EndpointRules | None = None,
    threads: int | None = None,
    punctuate: bool = True,
) -> Recognizer:
    """A recognizer from a checkpoint; without a name, from the one that is shipped.

    Args:
        name: the checkpoint's folder, or the name of one that `asr models` lists.
        latency: of streams: fast, balanced, accurate, or chunk and look-ahead in frames of 40 ms.
        hotwords: words and phrases to expect, such as "rill" or "new york:12" (the bonus of each; 8 if not given).
        lm: whether to search with lexicon and language model; without, text comes from the characters alone.
        device: "cpu", "cuda" or "auto", a GPU if there is one that PyTorch can use.
        engine: what computes the model: "torch", "onnx" (ONNX Runtime, CPU only) or "auto", the faster one.
        int8: compute with 8-bit weights, on the CPU; None: where they are faster.
        rules: when a stream's utterance ends.
        threads: utterances of recordings, and second passes, that are recognized at once; None: as many as there are
            cores.
        punctuate: whether text is written as sentences; without, it is raw words.

    Raises CheckpointError, HotwordError, ValueError for a latency that does not exist, and RillError for a device or
    engine that is not there.
    """
    return Recognizer(
        Engine(name, lm=lm, device=device, backend=engine, int8=int8, threads=threads),
        latency=latency,
        hotwords=hotwords,
        rules=rules,
        punctuate=punctuate,
    )
