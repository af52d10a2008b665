"""A recognizer made of paper for live sessions, which waits where a test tells it to."""

from __future__ import annotations

import threading

from asr.errors import HotwordError
from asr.model.latency import PRESETS
from asr.text.results import Final, Partial, Word

RATE = 1_000
TIMEOUT_S = 60  # after which a test gives up


class FakeStream:
    """One partial for each `accept`, one final at the end; both say how many samples came."""

    def __init__(self, recognizer, latency, hotwords):
        self.recognizer, self.latency, self.hotwords = recognizer, latency, hotwords
        self.preview_interval_steps, self.samples = 1, 0

    def accept(self, samples):
        self.recognizer.begun.set()
        assert self.recognizer.gate.wait(TIMEOUT_S)
        self.samples += len(samples)
        self.recognizer.seen.append((len(samples), self.preview_interval_steps, self.latency, self.hotwords))
        return [Partial(self._words(), 0.0)]

    def finish(self):
        return [Final(self._words(), 0.0, self.samples / RATE)]

    def _words(self):
        return (Word(str(self.samples), 0.0, self.samples / RATE, 1.0),)


class FakeRecognizer:
    """`gate`, closed, holds every `accept`; `begun` tells that one has begun; `seen` has what each was given."""

    latency, hotwords = PRESETS["fast"], ()

    def __init__(self):
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.seen = []

    def stream(self, sample_rate, latency, hotwords):
        return FakeStream(self, latency, hotwords)

    def prepare_hotwords(self, hotwords):
        if "" in hotwords:
            raise HotwordError("empty")
        return tuple(hotwords)
