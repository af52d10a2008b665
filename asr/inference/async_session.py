"""A live session on an event loop: the caller pushes audio as it comes, and a task of the session recognizes it.

`LiveSession` is the same with a thread, for programs without an event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import numpy as np

from asr.decoding.hotwords import Hotword
from asr.inference.live import move
from asr.inference.load_policy import CatchUp
from asr.inference.pending import Pending, wait_async
from asr.inference.recognizer import Event, Recognizer, Stream
from asr.model.latency import Latency, LatencyLike

MAX_BLOCK_S = 0.16  # longer blocks are cut: a step of the stream, so that its events come at once

Wait = Callable[[Pending[list[Event]]], Awaitable[list[Event]]]


class AsyncSession:
    """One client's `Stream` on the event loop that runs now.

    Args:
        recognizer: shared by any number of sessions.
        sample_rate: Hz, of all audio that is pushed. AudioError where it cannot be used.
        on_event: called on the event loop with each event, in order.
        latency, hotwords, punctuate, alternatives: as for `Recognizer.stream`.
        wait: how to wait for the stream's work: `wait_async` where a `BatchRunner` computes, else
            `wait_in_thread`.
        catch_up: makes recognition cheaper while this session is behind; a `BatchRunner` does so for all its streams.
        on_recognized, on_dropped: called with the seconds of audio that were recognized, or left out.

    An error of the recognition is raised by whatever the caller does next.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        sample_rate: float,
        on_event: Callable[[Event], None],
        *,
        latency: LatencyLike | None = None,
        hotwords: tuple[Hotword, ...] | None = None,
        punctuate: bool | None = None,
        alternatives: int = 0,
        wait: Wait = wait_async,
        catch_up: CatchUp | None = None,
        on_recognized: Callable[[float], None] = lambda seconds: None,
        on_dropped: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.recognizer, self.sample_rate, self.on_event = recognizer, sample_rate, on_event
        self.on_recognized, self.on_dropped = on_recognized, on_dropped
        self.latency = recognizer.latency if latency is None else Latency.parse(latency)
        self.hotwords = recognizer.hotwords if hotwords is None else hotwords
        self.punctuate, self.alternatives = punctuate, alternatives
        self.stream = self._open_stream()
        self._offset = 0.0  # seconds before the stream's first sample
        self._wait, self._catch_up = wait, catch_up
        self._pushed = self._waiting = self._dropped = 0  # samples; `_waiting` includes those in work
        self._expected = 0  # the sample that follows what the stream has heard
        self._queue: deque[tuple[int, np.ndarray]] = deque()  # each block with the number of its first sample
        self._finishing = False
        self._work = asyncio.Event()  # there is something to do
        self._progress = asyncio.Event()  # something was done
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._progress.set())

    @property
    def seconds(self) -> float:
        """Length of the audio that was pushed or dropped so far."""
        return self._pushed / self.sample_rate

    @property
    def lag(self) -> float:
        """Seconds of audio that were pushed and are not recognized yet."""
        return self._waiting / self.sample_rate

    @property
    def dropped(self) -> float:
        """Seconds of audio that were left out."""
        return self._dropped / self.sample_rate

    def set_latency(self, latency: LatencyLike) -> None:
        """Acts from the next chunk. Raises ValueError, also for full context."""
        self.latency = Latency.parse_live(latency)

    def set_hotwords(self, hotwords: tuple[Hotword, ...]) -> None:
        """Acts from the next utterance. The recognizer must have built their decoder, which takes about a second."""
        self.hotwords = hotwords

    def push(self, samples: np.ndarray) -> None:
        """Hand over audio, (n,) of any common dtype, at the session's rate."""
        self._raise_error()
        longest = max(1, round(MAX_BLOCK_S * self.sample_rate))
        for first in range(0, len(samples), longest):
            self._queue.append((self._pushed + first, samples[first : first + longest]))
        self._pushed += len(samples)
        self._waiting += len(samples)
        if self._due():
            self._work.set()

    def drop(self, samples: np.ndarray) -> None:
        """Leave this audio out. A new stream recognizes what follows, at its own time."""
        self._raise_error()
        self._pushed += len(samples)
        self._dropped += len(samples)
        self.on_dropped(len(samples) / self.sample_rate)

    async def caught_up(self, max_lag: float, patience: float = 0.0) -> None:
        """Returns when all audio is recognized that the stream can use; after `patience` seconds also when at most
        `max_lag` seconds of audio wait."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        timer = loop.call_at(until, self._progress.set)
        while self._work.is_set() and not self._task.done():
            if loop.time() >= until and self.lag <= max_lag:
                break
            self._progress.clear()
            await self._progress.wait()
        timer.cancel()
        self._raise_error()

    async def finish(self) -> None:
        """Returns when everything that was pushed is final."""
        self._finishing = True
        self._work.set()
        await asyncio.wait([self._task])  # cancelling the caller does not cancel the session
        self._task.result()

    def cancel(self) -> None:
        """The client has gone: recognize nothing more."""
        self._task.cancel()

    def _raise_error(self) -> None:
        if self._task.done():
            self._task.result()

    def _open_stream(self) -> Stream:
        return self.recognizer.stream(
            self.sample_rate,
            latency=self.latency,
            hotwords=self.hotwords,
            punctuate=self.punctuate,
            alternatives=self.alternatives,
        )

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            while self._queue and (self._finishing or self._due()):
                start, samples = self._take()
                events = await self._wait(self._accept(start, samples))
                self._waiting -= len(samples)
                self._report(events)
                self.on_recognized(len(samples) / self.sample_rate)
                self._progress.set()
            if self._finishing:
                self._report(await self._wait(self._finish_stream()))
                return
            self._work.clear()

    def _due(self) -> bool:
        """Whether the stream can do something with the audio that waits."""
        return self._waiting >= self.stream.wanted_s * self.sample_rate

    def _take(self) -> tuple[int, np.ndarray]:
        """The next audio without gaps, as much as the stream can use, and the number of its first sample."""
        start, block = self._queue.popleft()
        blocks, end = [block], start + len(block)
        while self._queue and self._queue[0][0] == end and end - start < self.stream.wanted_s * self.sample_rate:
            blocks.append(self._queue.popleft()[1])
            end += len(blocks[-1])
        return start, blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _accept(self, start: int, samples: np.ndarray) -> Pending[list[Event]]:
        events: list[Event] = []
        if start != self._expected:  # audio was dropped
            events = yield from self._finish_stream()
            self.stream, self._offset = self._open_stream(), start / self.sample_rate
        self._expected = start + len(samples)
        latency = self.latency
        if self._catch_up:
            latency = self._catch_up.adapt(self.stream, latency, self.lag - len(samples) / self.sample_rate)
        if self.stream.latency != latency:
            self.stream.latency = latency
        if self.stream.hotwords != self.hotwords:
            self.stream.hotwords = self.hotwords
        return [*events, *self._moved((yield from self.stream.accepting(samples)))]

    def _finish_stream(self) -> Pending[list[Event]]:
        return self._moved((yield from self.stream.finishing()))

    def _moved(self, events: list[Event]) -> list[Event]:
        """The stream's events at their times in the session."""
        return [move(event, self._offset) for event in events] if self._offset else events

    def _report(self, events: list[Event]) -> None:
        for event in events:
            self.on_event(event)
