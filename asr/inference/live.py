"""A live session: whoever has sound pushes it and never waits; one worker thread recognises it and reports events.

    with LiveSession(recognizer, 48_000, on_event=print) as session:
        session.push(block)                  # from an audio callback, a web handler, a file that is replayed
        session.stats                        # level, lag, what was dropped
    # leaving the block (or `close()`) makes the last words final

When recognition falls behind, provisional passes thin out first, then chunks grow (both are cheaper, and less prompt).
Only where that is not enough for a minute is sound dropped; it is counted, and later times stay right.
"""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from asr.audio import reading
from asr.decoding.decoder import shift
from asr.inference.engine import Hotwords
from asr.inference.recognizer import Event, Recognizer, Stream
from asr.model.latency import PRESETS, Latency
from asr.text.results import Final

LONGEST_QUEUE = 60.0  # seconds of sound that may wait for the worker; more is dropped
AT_ONCE = 0.64  # seconds of waiting sound that are recognised together, so that the lag falls quickly
LAG_ALLOWED = 0.4  # seconds; a lag of n times this leaves out n - 1 of n provisional passes
FEWEST_PREVIEWS = 8  # steps from one provisional pass to the next, at most
BEHIND = 2.0  # seconds of lag from which a session counts as behind and its chunks grow, until it has caught up
CATCHING_UP = PRESETS["accurate"]  # at least these chunks while behind


@dataclass(frozen=True, slots=True)
class Stats:
    """A session at one moment; all but `level`, `latency` and `behind` in seconds."""

    heard: float  # sound that was pushed, what was dropped included
    lag: float  # sound that was pushed and not recognised yet
    dropped: float  # sound that was lost because the queue was full
    level: float  # peak of the newest block, 0–1
    latency: Latency  # in force now, perhaps larger than the one that was asked for
    behind: bool


class CatchUp:
    """Makes a stream's recognition cheaper while it is behind: fewer provisional passes, then larger chunks."""

    def __init__(self) -> None:
        self.behind = False

    def adapt(self, stream: Stream, latency: Latency, lag: float) -> Latency:
        """Thin out the stream's provisional passes. Returns the latency to use: the given one, or larger chunks.

        `lag`: seconds of audio that still wait while the next audio is worked on.
        """
        self.behind = lag > BEHIND or (self.behind and lag > LAG_ALLOWED)
        stream.preview_every = min(FEWEST_PREVIEWS, 1 + int(lag / LAG_ALLOWED))
        if self.behind and latency.chunk < CATCHING_UP.chunk:
            return Latency(CATCHING_UP.chunk, max(latency.look_ahead, CATCHING_UP.look_ahead))
        return latency


class LiveSession:
    """One speaker's `Stream` on a worker thread of its own.

    Args:
        recognizer: shared by any number of sessions.
        sample_rate: Hz, of all that is pushed. AudioError where it cannot be used.
        on_event: called with each event and the lag in seconds at that moment, on the worker thread, in order. Where
            it raises, the session ends: `error` says why, and `close` raises it.
        latency, hotwords: as for `Recognizer.stream`.
    """

    def __init__(self, recognizer: Recognizer, sample_rate: float, on_event: Callable[[Event, float], None], *,
                 latency: str | tuple[int, int] | Latency | None = None, hotwords: Hotwords | None = None) -> None:
        self.recognizer, self.sample_rate, self.on_event = recognizer, sample_rate, on_event
        self.latency = recognizer.latency if latency is None else Latency.parse(latency)
        self.hotwords = recognizer.hotwords if hotwords is None else recognizer.parse_hotwords(hotwords)
        self.error: Exception | None = None
        self._queue: deque[tuple[int, np.ndarray]] = deque()  # each block with the number of its first sample
        self._changed = threading.Condition()  # guards the queue, the counts and `_closing`
        self._pushed = self._waiting = self._dropped = 0  # samples; `_waiting` includes what is being worked on
        self._level = 0.0
        self._catch_up, self._closing = CatchUp(), False
        self._stream, self._offset = self._new_stream(), 0.0
        self._worker = threading.Thread(target=self._run, name="recogniser", daemon=True)
        self._worker.start()

    def push(self, samples: np.ndarray, wait: bool = False) -> None:
        """Hand over sound, as for `to_mono`; returns at once. Raises AudioError; nothing is heard after `close`.

        With `wait`, for sources that can be held up, it blocks while the worker is behind, and nothing is dropped.
        """
        mono = reading.to_mono(samples)
        if not len(mono):
            return
        longest = LONGEST_QUEUE * self.sample_rate
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._waiting < LAG_ALLOWED * self.sample_rate or self._closing)
            if self._closing:
                return
            self._level = float(np.abs(mono).max())
            if self._waiting < longest:
                self._queue.append((self._pushed, mono))
                self._waiting += len(mono)
            else:
                self._dropped += len(mono)
            self._pushed += len(mono)
            self._changed.notify_all()

    @property
    def stats(self) -> Stats:
        with self._changed:
            heard, lag, dropped = (n / self.sample_rate for n in (self._pushed, self._waiting, self._dropped))
            return Stats(heard, lag, dropped, self._level, self._stream.latency, self._catch_up.behind)

    def set_latency(self, latency: str | tuple[int, int] | Latency) -> None:
        """Acts from the next chunk. Raises ValueError, also for full context."""
        chosen = Latency.parse(latency)
        if not chosen.live:
            raise ValueError("A live session cannot wait for full context: choose fast, balanced, accurate or C,R.")
        self.latency = chosen

    def set_hotwords(self, hotwords: Hotwords) -> None:
        """Acts from the next utterance. Raises HotwordError."""
        chosen = self.recognizer.parse_hotwords(hotwords)
        self.recognizer.decoder(chosen)  # built here, on the caller's time; the worker finds it ready
        self.hotwords = chosen

    def close(self, flush: bool = True) -> None:
        """End of the sound: returns when everything that was pushed is final, or, without `flush`, as soon as it can.

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

    def _new_stream(self) -> Stream:
        return self.recognizer.stream(self.sample_rate, latency=self.latency, hotwords=self.hotwords)

    def _run(self) -> None:
        try:
            expected = 0  # the sample that follows what the stream has heard
            while taken := self._take():
                start, samples = taken
                if start != expected:  # sound was dropped: what follows is another stream, at its own time
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
        except Exception as error:  # handed to whoever closes the session
            self.error = error
            with self._changed:
                self._closing = True
                self._changed.notify_all()

    def _take(self) -> tuple[int, np.ndarray] | None:
        """The next sound without gaps, at most about `AT_ONCE`; None once closed and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if not self._queue:
                return None
            start, block = self._queue.popleft()
            blocks, end = [block], start + len(block)
            while self._queue and self._queue[0][0] == end and end - start < AT_ONCE * self.sample_rate:
                blocks.append(self._queue.popleft()[1])
                end += len(blocks[-1])
        return start, np.concatenate(blocks)

    def _adapt(self, lag: float) -> None:
        """Settings for what comes next: those that were asked for, or cheaper ones while the lag is high (seconds that
        will still wait while the next sound is worked on)."""
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
    return replace(moved, end=moved.end + seconds) if isinstance(moved, Final) else moved
