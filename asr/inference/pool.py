"""Threads that serve requests in batches: those that came while the threads were busy.

The busier they are, the more requests wait together, and the larger and cheaper the batches become.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Generic, Protocol, TypeVar

from asr.model.hardware import set_threads

SMOOTHING = 0.1  # weight of the newest batch in the mean delay
DELAY_HALF_LIFE_S = 1.0  # of that mean, while nothing is asked

Request = TypeVar("Request")
Result = TypeVar("Result")
Contra = TypeVar("Contra", contravariant=True)


class BatchRule(Protocol[Contra]):
    """Which requests share a batch, and how long they wait for others. All times are the pool's clock, in seconds."""

    def start(self, waiting: Sequence[Contra], since: float, gathered: float) -> float:
        """When the next batch starts, if no other request comes.

        The first of the `waiting` requests, in order of arrival, came at `since`. At `gathered` requests have gathered
        for as long as the batch before took. A rule that starts then lets batches grow with the load, and does not make
        a lone request wait.
        """

    def choose(self, waiting: Sequence[Contra]) -> list[int]:
        """The positions of the next batch, at least one."""


@dataclass(eq=False)
class _Job(Generic[Request, Result]):
    request: Request
    since: float
    result: Future[Result] = field(default_factory=Future)


class BatchPool(Generic[Request, Result]):
    """Threads, and the requests that wait for them.

    Args:
        work: a batch of requests → their results, in order, in parts: each part is handed over at once.
        rule: how requests become batches.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        work: Callable[[list[Request]], Iterable[Sequence[Result]]],
        rule: BatchRule[Request],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.work, self.rule, self.clock = work, rule, clock
        # Hands results over: on the pool's thread, or on an event loop, which is then woken once for a batch.
        self.deliver: Callable[[Callable[[], None]], object] = lambda hand_over: hand_over()
        # Told of each batch, on the thread: its size, the seconds it took, the mean seconds from request to result.
        self.on_batch: Callable[[int, float, float], None] | None = None
        self._delay, self._delay_time = 0.0, 0.0  # the last of these, smoothed; when it was measured
        self._waiting: list[_Job[Request, Result]] = []
        self._changed = threading.Condition()  # guards `_waiting` and `_closing`
        self._closing = False
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, request: Request) -> Future[Result]:
        job: _Job[Request, Result] = _Job(request, self.clock())
        with self._changed:
            if self._closing:
                raise RuntimeError("The recognizer has been closed: make a new one.")
            self._waiting.append(job)
            self._changed.notify()
        return job.result

    @property
    def waiting(self) -> int:
        """How many requests no thread has taken yet."""
        return len(self._waiting)

    @property
    def delay(self) -> float:
        """Recent seconds from a request to its result."""
        return self._delay * 0.5 ** ((self.clock() - self._delay_time) / DELAY_HALF_LIFE_S)

    def close(self) -> None:
        """Returns when every request has its result."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        set_threads(1)  # a second thread inside one batch would wait for the first at every frame
        gathered = 0.0
        while batch := self._next_batch(gathered):
            began = self.clock()
            jobs = iter(batch)
            try:
                for results in self.work([job.request for job in batch]):
                    self.deliver(partial(_succeed, list(islice(jobs, len(results))), results))
            except Exception as error:  # the callers get it; the thread goes on with other requests
                self.deliver(partial(_fail, list(jobs), error))
            self._delay_time = now = self.clock()
            delay = sum(now - job.since for job in batch) / len(batch)
            self._delay += SMOOTHING * (delay - self._delay)
            if self.on_batch:
                self.on_batch(len(batch), now - began, delay)
            gathered = now + (now - began)

    def _next_batch(self, gathered: float) -> list[_Job[Request, Result]]:
        """Nothing once every request has its result and no more can come."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                requests = [job.request for job in self._waiting]
                if requests and not self._closing:
                    early = self.rule.start(requests, self._waiting[0].since, gathered) - self.clock()
                    if early > 0:
                        self._changed.wait(early)
                        continue  # with those that came meanwhile
                chosen = self.rule.choose(requests) if requests else []
                batch = [self._waiting[i] for i in chosen]
                self._waiting = [job for i, job in enumerate(self._waiting) if i not in set(chosen)]
                batch = [job for job in batch if job.result.set_running_or_notify_cancel()]
                if batch or (self._closing and not self._waiting):
                    return batch


def _succeed(jobs: list[_Job[Request, Result]], results: Sequence[Result]) -> None:
    for job, result in zip(jobs, results, strict=True):
        job.result.set_result(result)


def _fail(jobs: list[_Job[Request, Result]], error: Exception) -> None:
    for job in jobs:
        job.result.set_exception(error)
