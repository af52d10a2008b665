"""One speaker on an event loop: sound is taken as it comes, and a task of its own recognises it.

`LiveSession` is the same with a thread, for programs that have one speaker.
"""
from __future__ import annotations

import asyncio
import time
from collections import deque

import numpy as np

from asr.inference.batching import drive
from asr.inference.recognizer import Event, Stream
from asr.server.metrics import Metrics
from asr.text.results import Final

AT_ONCE = 0.16  # seconds of sound that blocks are cut to: a step of the stream, so that its events come at once
ARRIVALS = 600  # blocks whose arrival is remembered: a minute of 0.1 s ones


class Session:
    """A stream that is fed with `push`, and whose results are fetched whenever it suits.

    `finals` are those that nobody has fetched yet, `partial` is the text after them. What goes wrong is raised by
    `caught_up` and `finish`.
    """

    def __init__(self, stream: Stream, door: str, metrics: Metrics) -> None:
        self.stream, self.door, self.metrics = stream, door, metrics
        self.rate = stream.resampler.source_rate
        self._longest = max(1, round(AT_ONCE * self.rate))  # samples of a block
        self.finals: list[Final] = []
        self.partial = ""
        self.waiting = 0  # samples that are not recognised yet, those being worked on included
        self._pushed = 0  # samples
        self._arrived: deque[tuple[int, float]] = deque(maxlen=ARRIVALS)  # samples until then, when
        self._queue: deque[np.ndarray] = deque()
        self._closing = False
        self._sound = asyncio.Event()  # there is something to do
        self._moved = asyncio.Event()  # something was done
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._moved.set())

    @property
    def seconds(self) -> float:
        """Sound that was pushed so far."""
        return self._pushed / self.rate

    def push(self, samples: np.ndarray) -> None:
        """Hand over sound, (n,) of any common dtype at the stream's rate."""
        self._pushed += len(samples)
        self.waiting += len(samples)
        self._arrived.append((self._pushed, time.monotonic()))
        for first in range(0, len(samples), self._longest):
            self._queue.append(samples[first:first + self._longest])
        if self._due():
            self._sound.set()

    async def caught_up(self, lag: float, patience: float = 0.0) -> None:
        """Returns when all is recognised that something can come of; after `patience` seconds also when `lag` seconds
        wait."""
        until = time.monotonic() + patience
        timer = asyncio.get_running_loop().call_later(patience, self._moved.set)
        while self._sound.is_set() and not self._task.done():
            if time.monotonic() >= until and self.waiting <= lag * self.rate:
                break
            self._moved.clear()
            await self._moved.wait()
        timer.cancel()
        if self._task.done():
            self._task.result()

    async def finish(self) -> None:
        """Everything that was pushed becomes final."""
        self._closing = True
        self._sound.set()
        await asyncio.wait([self._task])  # whoever waits may be interrupted without interrupting it
        self._task.result()

    def cancel(self) -> None:
        """The speaker has gone: nothing more is recognised."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            await self._sound.wait()
            while self._queue and (self._closing or self._due()):
                samples = self._take()
                self._report(await drive(self.stream.accepting(samples)))
                self.waiting -= len(samples)
                self.metrics.recognised(self.door, len(samples) / self.rate)
                self._moved.set()
            if self._closing:
                self._report(await drive(self.stream.finishing()))
                return
            self._sound.clear()

    def _due(self) -> bool:
        """Whether something can come of what waits."""
        return self.waiting >= self.stream.wants * self.rate

    def _take(self) -> np.ndarray:
        """The next sound: as much as something can come of."""
        blocks = [self._queue.popleft()]
        size = len(blocks[0])
        while self._queue and size < self.stream.wants * self.rate:
            blocks.append(self._queue.popleft())
            size += len(blocks[-1])
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _report(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Final):
                self.finals.append(event)
                self.partial = ""
                self.metrics.finals.inc()
                self._measure(event)
            else:
                self.partial = event.text

    def _measure(self, final: Final) -> None:
        end = final.end * self.rate
        while self._arrived and self._arrived[0][0] < end:
            self._arrived.popleft()
        if self._arrived:
            self.metrics.latency.observe(time.monotonic() - self._arrived[0][1])
