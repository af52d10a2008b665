"""Dynamic batching: what many live streams ask of the model at about the same time runs as one batch.

    recognizer.work = batcher = Batcher(recognizer)

After that every stream of the recognizer asks the batcher: threads wait for its futures in `Stream.accept`, coroutines
in `drive`. The busier it is, the more turns wait together, and the larger and cheaper the batches become; and the
more provisional passes, which cost several times the committed work, are left out.
"""
from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor

from asr.decoder import Decoder
from asr.engine import Engine
from asr.results import Word
from asr.stream import Steps
from asr.turns import Heard, Turn, take

GATHER = 0.02  # seconds that the first turn of a batch waits for others
GATHER_PASSES = 0.08  # the same for second passes, which begin well before they are needed
MOST_TURNS = 64  # in one batch
MOST_PASSES = 4  # utterances in one batch of second passes
SIMILAR = 0.6  # shortest over longest utterance of one batch; the rest of the shorter ones is padding
AT_EASE = 0.06  # seconds that a turn may take; for each `SLOW` more one more provisional pass in a row is left out,
SLOW = 0.02  # so that a turn seldom takes longer than the 0.16 s of sound that it is for
FEWEST_PREVIEWS = 8  # steps from one provisional pass to the next, at most
SMOOTHING = 0.2  # weight of the newest batch in the mean of what a turn takes

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")
Pass = tuple[Tensor, Decoder]  # an utterance's mel frames (T, bands), T ≥ 1, and how it becomes words


@dataclass(eq=False)
class _Asked(Generic[Q, A]):
    question: Q
    answer: Future[A] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Pool(Generic[Q, A]):
    """Threads that answer questions in batches: those that came while they were busy.

    Args:
        work: a batch of questions → an answer each, in order.
        choose: from the waiting questions, longest waiting first → the positions of the next batch, at least one.
        gather: seconds in which more questions may join a batch.
    """

    def __init__(self, name: str, threads: int, work: Callable[[list[Q]], Iterable[A]],
                 choose: Callable[[list[Q]], list[int]], gather: float = 0.0) -> None:
        self.work, self.choose, self.gather = work, choose, gather
        self.on_batch: Callable[[int, float, float], None] | None = None  # told of each, on the thread: its size,
        # the seconds that it took, and those that its questions waited in the mean until they were answered
        self._delay, self._answered = 0.0, 0.0  # the latter smoothed; when it was taken
        self._waiting: list[_Asked[Q, A]] = []
        self._changed = threading.Condition()  # guards what waits, and `_closing`
        self._closing = False
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def ask(self, question: Q) -> Future[A]:
        asked: _Asked[Q, A] = _Asked(question)
        with self._changed:
            if self._closing:
                raise RuntimeError("The recogniser has been closed.")
            self._waiting.append(asked)
            self._changed.notify()
        return asked.answer

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def delay(self) -> float:
        """Seconds from a question to its answer, of late."""
        return self._delay * 0.5 ** (time.monotonic() - self._answered)

    def close(self) -> None:
        """Returns when everything that was asked is answered."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        torch.set_num_threads(1)  # a second thread inside one batch would wait for the first at every frame
        while batch := self._take():
            began = time.monotonic()
            try:
                for asked, answer in zip(batch, self.work([asked.question for asked in batch]), strict=True):
                    asked.answer.set_result(answer)
            except Exception as error:  # whoever asked is told; the thread goes on with the others
                for asked in batch:
                    if not asked.answer.done():
                        asked.answer.set_exception(error)
            self._answered = time.monotonic()
            delay = sum(self._answered - asked.since for asked in batch) / len(batch)
            self._delay += SMOOTHING * (delay - self._delay)
            if self.on_batch:
                self.on_batch(len(batch), self._answered - began, delay)

    def _take(self) -> list[_Asked[Q, A]]:
        """The next batch; nothing once all is answered and no more can come."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self.gather and not self._closing:
                    self._changed.wait_for(lambda: self._closing, self.gather)
                chosen = self.choose([asked.question for asked in self._waiting]) if self._waiting else []
                batch = [self._waiting[i] for i in chosen]
                self._waiting = [asked for i, asked in enumerate(self._waiting) if i not in set(chosen)]
                batch = [asked for asked in batch if asked.answer.set_running_or_notify_cancel()]
                if batch or (self._closing and not self._waiting):
                    return batch


class Batcher:
    """Runs the model for all streams of one engine, on threads of its own; see `engine.Work`.

    Turns and second passes have a thread each, or a share of the cores, so that neither waits for the other.
    """

    def __init__(self, engine: Engine, threads: int | None = None) -> None:
        self.engine = engine
        if threads is None:
            threads = 1 if engine.device.type == "cuda" else max(1, (os.cpu_count() or 1) // 2)
        self.lag = 0.0  # seconds that answers wait until whoever asked goes on; a server measures and sets it
        self.turns: Pool[Turn, Heard] = Pool("turns", threads, partial(take, engine.model), _first, GATHER)
        self.passes: Pool[Pass, list[Word]] = Pool("passes", threads, self._recognize, similar,
                                                          GATHER_PASSES)

    def turn(self, turn: Turn) -> Future[Heard]:
        return self.turns.ask(turn)

    def second_pass(self, mel: Tensor, search: Decoder) -> Future[list[Word]]:
        return self.passes.ask((mel, search))

    @property
    def delay(self) -> float:
        """Seconds that a turn takes of late, until its stream goes on."""
        return self.turns.delay + self.lag

    @property
    def preview_every(self) -> int:
        return min(FEWEST_PREVIEWS, 1 + max(0, int((self.delay - AT_EASE) / SLOW)))

    def close(self) -> None:
        self.turns.close()
        self.passes.close()

    def _recognize(self, batch: list[Pass]) -> list[list[Word]]:
        utterances, searches = zip(*batch, strict=True)
        return self.engine.recognize_whole(utterances, searches)


def _first(turns: list[Turn]) -> list[int]:
    return list(range(min(len(turns), MOST_TURNS)))


def similar(waiting: list[Pass]) -> list[int]:
    """The second pass that has waited longest, and those that would not make much padding with it."""
    length = len(waiting[0][0])
    others = [i for i, (mel, _) in enumerate(waiting) if SIMILAR * length <= len(mel) <= length / SIMILAR]
    return others[:MOST_PASSES]


async def drive(steps: Steps[T]) -> T:
    """Wait for each future without holding up the event loop."""
    result = None
    while True:
        try:
            future = steps.send(result)
        except StopIteration as end:
            return end.value
        result = await asyncio.wrap_future(future)
