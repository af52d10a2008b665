"""One speaker, live: samples in, partial and final text out, as they become known.

An utterance's final text comes from a second pass with full context over its buffered mel frames, so it is as accurate
as a file's; partials come from the latency-controlled pass and a provisional look at what lies right of it.
"""
from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from asr.audio import reading
from asr.decoding.decoder import Emissions, shift
from asr.decoding.hotwords import Hotword
from asr.inference.endpoint import Cut, Endpointer, EndpointRules, active
from asr.inference.engine import Engine, Hotwords
from asr.inference.stability import Stability
from asr.inference.steps import Turn
from asr.model.latency import Latency
from asr.text.results import Final, Partial, Word

T = TypeVar("T")
Event = Partial | Final
Steps = Generator[Future[Any], Any, T]  # work that waits for one future after another, and is sent its result
STEP = 16  # mel frames (160 ms) after which a stream that is at ease looks at all that it has heard


def run(steps: Steps[T]) -> T:
    """Wait for each future, on the calling thread."""
    result = None
    while True:
        try:
            future = steps.send(result)
        except StopIteration as end:
            return end.value
        result = future.result()


class Stream:
    """One speaker, live. Feed it with `accept`, end it with `finish`; both return events in order of time.

    Events do not depend on how the samples are cut, except that a partial comes at most once a call. Work and memory
    are bounded by the longest utterance, so a stream can last for days. `accepting` and `finishing` are the same as
    steps for whoever waits otherwise; those of one call must end before the next call.
    """

    def __init__(self, engine: Engine, sample_rate: float, latency: Latency, hotwords: tuple[Hotword, ...],
                 two_pass: bool, rules: EndpointRules) -> None:
        self.engine, self.two_pass = engine, two_pass
        self.resampler = reading.Resampler(sample_rate)
        self.features = engine.frontend.stream()
        self.endpointer = Endpointer(rules, engine.seconds_per_frame)
        self.tokens = engine.checkpoint.config.tokens[engine.head]
        self.latency = latency
        self.hotwords = hotwords
        self.preview_every = 1  # steps from one look at everything to the next: raise it when computing falls behind
        self.pending = torch.zeros(0, engine.frontend.bands)  # mel frames that no utterance has heard yet
        self.origin = 0  # mel frame of the stream at which the utterance begins
        self.finished = False
        self._begin()
        self.wants = self._wants()  # seconds of sound with fewer than which nothing more can happen

    @property
    def latency(self) -> Latency:
        """May be changed at any time, and acts at the next chunk. Raises ValueError for full context."""
        return self._latency

    @latency.setter
    def latency(self, value: str | tuple[int, int] | Latency) -> None:
        latency = Latency.parse(value)
        if not latency.live:
            raise ValueError("A live stream cannot wait for full context: choose fast, balanced, accurate or C,R.")
        self._latency = latency

    @property
    def hotwords(self) -> tuple[Hotword, ...]:
        """May be changed at any time, and act from the next utterance on. Raises HotwordError."""
        return self._hotwords

    @hotwords.setter
    def hotwords(self, value: Hotwords) -> None:
        chosen = self.engine.parse_hotwords(value)
        self._decoder = self.engine.decoder(chosen)
        self._hotwords = chosen

    def accept(self, samples: np.ndarray) -> list[Event]:
        """Any number of samples, (n,) or (n, channels), of any common dtype. Raises AudioError, and stays usable."""
        return run(self.accepting(samples))

    def finish(self) -> list[Event]:
        """The end of the sound: everything that was heard becomes final. A second call returns nothing."""
        return run(self.finishing())

    def accepting(self, samples: np.ndarray) -> Steps[list[Event]]:
        """`accept` in steps."""
        if self.finished:
            raise RuntimeError("This stream is finished: ask the recognizer for a new one.")
        least = self.step - len(self.pending)  # with fewer frames nothing could happen
        return (yield from self._hear(self.features.accept(self.resampler.push(samples), least), last=False))

    def finishing(self) -> Steps[list[Event]]:
        """`finish` in steps."""
        if self.finished:
            return []
        self.finished = True
        return (yield from self._hear(self.features.accept(self.resampler.flush()), last=True))

    def _wants(self) -> float:
        """Work is saved by whoever hands over so many seconds at once."""
        missing = self.features.missing(self.step - len(self.pending)) / reading.SAMPLE_RATE
        return max(0.0, missing - self.resampler.held)

    @property
    def seconds(self) -> float:
        """How much sound has been turned to frames so far."""
        return (self.origin + self.heard + len(self.pending)) * self.engine.frontend.seconds_per_frame

    def _begin(self) -> None:
        """An utterance starts at `origin`."""
        self.mel: list[Tensor] = []
        self.heard = 0  # mel frames of this utterance
        self.state = self.engine.model.stream_state()
        self.decoder = self._decoder  # hot words that change now act from the next utterance on
        self.session = self.decoder.session(draft=self.two_pass)
        self.activity = np.zeros(0, dtype=bool)  # of committed frames
        self.audible = False  # whether an active frame was seen, provisional ones included
        self.look_at = self.endpointer.next_look(self.activity)  # frames with which the next decision is due
        self.seen = True  # whether the newest step looked at everything that was heard
        self.preview: Emissions | None = None
        self.beginning = 0  # frame before which nothing was said
        self.second_pass: tuple[range, Future[list[Word]]] | None = None  # frames it covers, what it gives
        self.stability = Stability()
        self.visible: tuple[Word, ...] = ()  # what a partial shows
        self.shown = ""  # what the last one did
        self.unseen = 0  # mel frames since one did
        self.step = self._step_size()

    def _hear(self, mel: Tensor, last: bool) -> Steps[list[Event]]:
        self.pending = torch.cat([self.pending, mel])
        events: list[Event] = []
        while len(self.pending) >= self.step:
            step, self.pending = self.pending[:self.step], self.pending[self.step:]
            if cut := (yield from self._step(step)):
                events += yield from self._end(cut)
            elif self.seen and self.audible:
                self.visible = self.stability.shown(self.session.words(self.preview))
            self.step = self._step_size()
        if last:
            yield from self._step(self.pending, last=True)
            self.pending = self.pending[:0]
            events += yield from self._end(Cut(len(self.activity), True))
        else:
            events += self._partial()
        self.wants = self._wants()
        return events

    def _step_size(self) -> int:
        """Mel frames until something is to be done: a chunk is ready, a decision due, or everything looked at again.

        The first two depend on nothing but the sound, and only there an utterance can end: so it ends where it does
        also when the third comes seldom.
        """
        chunk = self.engine.model.missing(self.state, self.latency.chunk + self.latency.look_ahead)
        return max(1, min(chunk, self._until_due(), self._until_regular()))

    def _until_due(self) -> int:
        """Mel frames until a decision is due."""
        return self.engine.model.missing(self.state, self.look_at - len(self.activity))

    def _until_regular(self) -> int:
        """Mel frames until everything is looked at again."""
        return STEP * max(self.preview_every, self.engine.work.preview_every) - self.unseen

    def _step(self, mel: Tensor, last: bool = False) -> Steps[Cut | None]:
        """Hear a few more mel frames: commit the chunk that is ready, look at the rest, look for an endpoint."""
        regular, due = self._until_regular() <= len(mel), self._until_due() <= len(mel)
        self.mel.append(mel)
        self.heard += len(mel)
        self.unseen += len(mel)
        heard = yield self.engine.work.turn(Turn(self.state, mel, self._latency, last, regular or due))
        for emissions in heard.committed:
            self.session.accept(emissions)
            self.activity = np.concatenate([self.activity, active(emissions[self.engine.head], self.tokens)])
        self.preview = heard.provisional
        self.seen = heard.complete and (regular or bool(heard.committed))
        if self.seen:
            self.unseen = 0
        activity = self.activity
        if self.preview is not None:
            activity = np.concatenate([activity, active(self.preview[self.engine.head], self.tokens)])
        self.beginning = self.endpointer.beginning(activity)
        if last or not heard.complete:
            return None
        self.audible = bool(activity.any())
        if self.two_pass and (end := self.endpointer.likely_end(activity)):
            self._second_pass(end)
        else:
            self._give_up()
        if not (due or heard.committed):
            return None
        self.look_at = self.endpointer.next_look(activity)
        return self.endpointer.decide(activity)

    def _partial(self) -> list[Event]:
        start = self.origin * self.engine.frontend.seconds_per_frame
        partial = Partial(tuple(shift(self.visible, start)), start)
        if partial.text == self.shown:
            return []
        self.shown = partial.text
        return [partial]

    def _second_pass(self, end: int) -> Future[list[Word]]:
        """Words from `beginning` up to a frame with full context, times from `beginning`; worked out on another thread
        so that live text goes on meanwhile."""
        frames = range(self.beginning, end)
        if self.second_pass is None or self.second_pass[0] != frames:
            self._give_up()
            subsampling = self.engine.model.config.subsampling
            mel = torch.cat(self.mel)[frames.start * subsampling:frames.stop * subsampling]
            self.second_pass = frames, self.engine.work.second_pass(mel, self.decoder)
        return self.second_pass[1]

    def _give_up(self) -> None:
        """The speaker has talked past what seemed to be the end."""
        if self.second_pass:
            self.second_pass[1].cancel()
        self.second_pass = None

    def _first_pass(self, frame: int) -> list[Word]:
        """Words of the committed pass; at a cut those that begin before it, the others belong to the next utterance."""
        if self.state.ended:
            return self.session.finish() if self.activity.any() else []
        end = frame * self.engine.seconds_per_frame
        return [word for word in self.session.words(self.preview) if word.start < end]

    def _end(self, cut: Cut) -> Steps[list[Event]]:
        """Close the utterance at a cut; what was heard right of it opens the next one."""
        words: list[Word] = []
        if cut.spoken and cut.frame > self.beginning:
            if self.two_pass:
                words = shift((yield self._second_pass(cut.frame)), self.beginning * self.engine.seconds_per_frame)
            else:
                words = self._first_pass(cut.frame)
        words = shift(words, self.origin * self.engine.frontend.seconds_per_frame)
        end = min(cut.frame * self.engine.model.config.subsampling, self.heard)
        self.pending = torch.cat([*self.mel, self.pending])[end:]
        self.origin += end
        self._begin()
        return [Final.of(words)] if words else []
