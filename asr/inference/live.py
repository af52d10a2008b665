"""A live session: its owner pushes audio and never waits; one worker thread recognizes it and reports events.

When recognition falls behind, `LoadPolicy` says what is left out. Audio that is dropped is counted, and later times
stay right.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from asr.audio import reading
from asr.decoding.decoder import shift, shift_all
from asr.inference.engine import Hotwords
from asr.inference.load_policy import CatchUp, LoadPolicy
from asr.inference.recognizer import Event, Recognizer, Stream
from asr.model.latency import Latency, LatencyLike
from asr.text.results import Final

AT_ONCE_S = 0.64  # of waiting audio that is recognized together, so that the lag falls quickly


@dataclass(frozen=True, slots=True)
class Stats:
    """A session at one moment; all but `level`, `latency` and `behind` in seconds."""

    heard: float  # audio that was pushed, dropped audio included
    lag: float  # audio that was pushed and is not recognized yet
    dropped: float  # audio that was lost because the queue was full
    level: float  # peak of the newest block, 0–1
    latency: Latency  # in force now, perhaps larger than the one that was asked for
    behind: bool  # whether recognition has fallen so far behind that chunks have grown


class LiveSession:
    """One speaker's `Stream` on a worker thread of its own.

        with LiveSession(recognizer, 48_000, on_event=lambda event, lag: print(event.text)) as session:
            session.push(block)                  # from an audio callback, a web handler, a replayed file
            session.stats                        # level, lag, dropped audio
        # leaving the block, or `close()`, makes the last words final

    Args:
        recognizer: shared by any number of sessions.
        sample_rate: Hz, of all that is pushed.
        on_event: called with each event and the lag in seconds at that moment, on the worker thread, in order. If it
            raises, the session ends: `error` has the exception, and `close` raises it.
        latency, hotwords: as for `Recognizer.stream`.

    Raises AudioError for a rate that cannot be used, HotwordError, and ValueError for full context.
    """

    _policy = LoadPolicy()

    def __init__(
        self,
        recognizer: Recognizer,
        sample_rate: float,
        on_event: Callable[[Event, float], None],
        *,
        latency: LatencyLike | None = None,
        hotwords: Hotwords | None = None,
    ) -> None:
        self.recognizer, self.sample_rate, self.on_event = recognizer, sample_rate, on_event
        self.latency = recognizer.latency if latency is None else Latency.parse(latency)
        self.hotwords = recognizer.hotwords if hotwords is None else recognizer.prepare_hotwords(hotwords)
        self.error: Exception | None = None
        self._queue: deque[tuple[int, np.ndarray]] = deque()  # each block with the number of its first sample
        self._changed = threading.Condition()  # guards the queue, the counts and `_closing`
        self._pushed = self._waiting = self._dropped = 0  # samples; `_waiting` includes what is being worked on
        self._level = 0.0
        self._catch_up, self._closing = CatchUp(self._policy), False
        self._stream, self._offset = self._new_stream(), 0.0
        self._worker = threading.Thread(target=self._run, name="recognizer", daemon=True)
        self._worker.start()

    def push(self, samples: np.ndarray, wait: bool = False) -> None:
        """Hand over audio, (n,) or (n, channels) of any common dtype; returns at once. Raises AudioError.

        With `wait`, for sources that can be held up, it blocks while the worker is behind, and nothing is dropped.
        After `close` it does nothing.
        """
        mono = reading.to_mono(samples)
        if not len(mono):
            return
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._lag_s() < self._policy.lag_per_preview_s or self._closing)
            if self._closing:
                return
            self._level = float(np.abs(mono).max())
            if self._lag_s() < self._policy.max_queue_s:
                self._queue.append((self._pushed, mono))
                self._waiting += len(mono)
            else:
                self._dropped += len(mono)
            self._pushed += len(mono)
            self._changed.notify_all()

    @property
    def stats(self) -> Stats:
        with self._changed:
            return Stats(
                self._pushed / self.sample_rate,
                self._lag_s(),
                self._dropped / self.sample_rate,
                self._level,
                self._stream.latency,
                self._catch_up.behind,
            )

    def set_latency(self, latency: LatencyLike) -> None:
        """Acts from the next chunk. Raises ValueError, also for full context."""
        self.latency = Latency.parse_live(latency)

    def set_hotwords(self, hotwords: Hotwords) -> None:
        """Acts from the next utterance. Raises HotwordError."""
        self.hotwords = self.recognizer.prepare_hotwords(hotwords)  # on the caller's time; the worker finds it ready

    def close(self, flush: bool = True) -> None:
        """End of the audio: returns when everything that was pushed is final, or, without `flush`, as soon as it can.

        May be called again, and from any thread but the worker's. Raises what ended the session early, if anything.
        """
        with self._changed:
            self._closing = True
            if not flush:
                self._queue.clear()
            self._changed.notify_all()
        self._worker.join()
        if self.error:
            raise self.error

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lag_s(self) -> float:
        return self._waiting / self.sample_rate

    def _new_stream(self) -> Stream:
        return self.recognizer.stream(self.sample_rate, latency=self.latency, hotwords=self.hotwords)

    def _run(self) -> None:
        try:
            expected = 0  # the sample after those that the stream has
            while taken := self._take():
                start, samples = taken
                if start != expected:  # audio was dropped: what follows is another stream, at its own time
                    self._report(self._stream.finish())
                    self._stream, self._offset = self._new_stream(), start / self.sample_rate
                expected = start + len(samples)
                self._adapt(self.stats.lag - len(samples) / self.sample_rate)
                events = self._stream.accept(samples)
                with self._changed:
                    self._waiting -= len(samples)
                    self._changed.notify_all()
                self._report(events)
            self._report(self._stream.finish())
        except Exception as error:  # `close` raises it
            self.error = error
            with self._changed:
                self._closing = True
                self._changed.notify_all()

    def _take(self) -> tuple[int, np.ndarray] | None:
        """The next audio without gaps, at most about `AT_ONCE_S`; None once closed and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if not self._queue:
                return None
            start, block = self._queue.popleft()
            blocks, end = [block], start + len(block)
            while self._queue and self._queue[0][0] == end and end - start < AT_ONCE_S * self.sample_rate:
                blocks.append(self._queue.popleft()[1])
                end += len(blocks[-1])
        return start, np.concatenate(blocks)

    def _adapt(self, lag: float) -> None:
        """Set the stream to what was asked for, or to what the policy says at this lag: seconds of audio that will
        still wait while the next is worked on."""
        stream, chosen = self._stream, self._catch_up.adapt(self._stream, self.latency, lag)
        if stream.latency != chosen:
            stream.latency = chosen
        if stream.hotwords != self.hotwords:
            stream.hotwords = self.hotwords

    def _report(self, events: list[Event]) -> None:
        lag = self.stats.lag
        for event in events:
            self.on_event(move(event, self._offset), lag)


def move(event: Event, seconds: float) -> Event:
    """The same event, so many seconds later."""
    moved = replace(event, words=tuple(shift(event.words, seconds)), start=event.start + seconds)
    if not isinstance(moved, Final):
        return moved
    return replace(moved, end=moved.end + seconds, alternatives=tuple(shift_all(moved.alternatives, seconds)))
