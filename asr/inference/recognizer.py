"""The front door: a `Recognizer` transcribes recordings and opens live streams, all with the same model.

    source of samples → Resampler → frontend → AcousticModel → decoder → Partial / Final

Files, microphones, browsers and sockets drive the same `Stream`. A recording is cut where it is quietest and each
segment decoded with full context: the highest latency of the same engine.
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from asr.audio import reading
from asr.audio.segmenter import Segmenter
from asr.decoding.decoder import shift
from asr.inference.endpoint import EndpointRules
from asr.inference.engine import Engine, Hotwords
from asr.inference.stream import Event, Stream
from asr.model.latency import Latency
from asr.text.results import Final, Transcript

__all__ = ["Event", "Recognizer", "Stream", "load"]

GROUPS = (2, 16)  # segments of a file that are sorted by length and batched: in the first group, in the largest
FILE_BLOCK = 10.0  # seconds of a file that are decoded and turned to features at a time
PAUSE = 0.8  # seconds without a word that part a file's segments, as they part a stream's utterances


class Recognizer(Engine):
    def stream(self, sample_rate: float = reading.SAMPLE_RATE, *,
               latency: str | tuple[int, int] | Latency | None = None, hotwords: Hotwords | None = None,
               two_pass: bool = True, rules: EndpointRules | None = None) -> Stream:
        """A new speaker's stream, fed at `sample_rate` Hz.

        Without `two_pass` a final is the last partial: what was committed at this latency.
        """
        settings = self.latency if latency is None else Latency.parse(latency)
        chosen = self.hotwords if hotwords is None else self.parse_hotwords(hotwords)
        return Stream(self, sample_rate, settings, chosen, two_pass, rules or self.rules)

    def transcribe(self, source: reading.Source, *, sample_rate: float | None = None,
                   latency: str | tuple[int, int] | Latency = "offline") -> Transcript:
        """A file, a binary stream or an array with its rate, as a whole. Raises AudioError."""
        segments: list[Final] = []
        seconds = 0.0
        for seconds, new in self.transcribe_parts(source, sample_rate=sample_rate, latency=latency):  # noqa: B007
            segments += new
        return Transcript(tuple(segments), seconds)

    def transcribe_parts(self, source: reading.Source, *, sample_rate: float | None = None,
                         latency: str | tuple[int, int] | Latency = "offline") -> Iterator[tuple[float, list[Final]]]:
        """As `transcribe`, in parts: (seconds read so far, segments that became known). Memory does not grow."""
        settings = Latency.parse(latency)
        features = self.frontend.stream()
        config = self.frontend.config
        segmenter = Segmenter(config.hop, config.sample_rate)
        waiting: list[Tensor] = []
        position = samples = 0
        group, largest = GROUPS  # small at first, so that text appears soon
        for block in reading.read_blocks(source, sample_rate=sample_rate, block_seconds=FILE_BLOCK):
            samples += len(block)
            waiting += segmenter.push(block, features.accept(block))
            if len(waiting) >= group:
                group = min(2 * group, largest)
                yield samples / config.sample_rate, self._finals(waiting, position, settings)
                position += sum(len(mel) for mel in waiting)
                waiting = []
        waiting += segmenter.flush()
        yield samples / config.sample_rate, self._finals(waiting, position, settings)

    def _finals(self, segments: Sequence[Tensor], position: int, latency: Latency) -> list[Final]:
        """Adjoining segments of mel frames, the first at mel frame `position` → finals that end at pauses."""
        finals = []
        for mel, words in zip(segments, self.recognize(segments, latency), strict=True):
            words = shift(words, position * self.frontend.seconds_per_frame)
            position += len(mel)
            starts = [0] + [i for i in range(1, len(words))
                            if words[i].start - words[i - 1].end >= PAUSE] + [len(words)]
            finals += [Final.of(words[a:b]) for a, b in pairwise(starts) if b > a]
        return finals

    def decode_utterance(self, samples: np.ndarray, latency: str | tuple[int, int] | Latency = "offline") -> Final:
        """One utterance of mono float32 samples at 16 kHz as it is: no segments, no endpoints."""
        mel = self.frontend(torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)))
        return Final.of(self.recognize([mel], Latency.parse(latency))[0])


def load(name: str | os.PathLike[str] | None = None, *, latency: str | tuple[int, int] | Latency = "balanced",
         hotwords: Hotwords = (), lm: bool = True, device: str = "auto", engine: str = "auto",
         int8: bool | None = False) -> Recognizer:
    """A recognizer from a checkpoint folder, or from the one that is shipped."""
    return Recognizer(name, latency=latency, hotwords=hotwords, lm=lm, device=device, engine=engine, int8=int8)
