"""Dynamic batching: what many live streams ask of the model at about the same time runs as one batch.

    runner = BatchRunner(recognizer.engine)
    shared = recognizer.with_runner(runner)

Every stream of `shared` asks the runner. Threads wait for its futures in `Stream.accept`, coroutines in
`pending.wait_async`. The busier it is, the larger the batches become, and the more previews `LoadPolicy` leaves out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from asr.inference.engine import Engine, SecondPassRequest
from asr.inference.load_policy import LoadPolicy
from asr.inference.pool import BatchPool
from asr.inference.steps import StepRequest, StepResult, run_steps
from asr.model.hardware import cores, set_threads
from asr.text.results import Alternative

T = TypeVar("T")


@dataclass(frozen=True)
class BatchPolicy:
    """How long requests wait for others, and which of them share a batch."""

    max_step_wait_s: float = 0.05
    max_second_pass_wait_s: float = 0.06
    patience_s: float = 0.2  # that steps wait which are not urgent, while they are fewer than `steps_per_batch`
    steps_per_batch: int = 3  # more of them would make a batch longer but hardly cheaper
    crowd_steps: int = 16  # more waiting steps than these run in order of arrival, so that none waits for ever
    max_batch_mel_frames: int = 2000  # of the utterances in one batch, so that the next ones do not wait for long
    min_length_ratio: float = 0.6  # of the shortest to the longest utterance in one batch; the rest is padding


class StepRule:
    """Urgent steps first; steps that only commit a chunk amid speech wait for others."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.policy = policy

    def start(self, waiting: Sequence[StepRequest], since: float, gathered: float) -> float:
        few = len(waiting) < self.policy.steps_per_batch and not any(request.urgent for request in waiting)
        if few:
            return since + self.policy.patience_s
        return min(gathered, since + self.policy.max_step_wait_s)

    def choose(self, waiting: Sequence[StepRequest]) -> list[int]:
        order = list(range(len(waiting)))
        if len(waiting) <= self.policy.crowd_steps:
            order.sort(key=lambda i: not waiting[i].urgent)
        return order[: self.policy.steps_per_batch]


class SecondPassRule:
    """The utterance that has waited longest, and those of about its length."""

    def __init__(self, policy: BatchPolicy, most: int) -> None:
        self.policy, self.most = policy, most

    def start(self, waiting: Sequence[SecondPassRequest], since: float, gathered: float) -> float:
        return min(gathered, since + (self.policy.max_second_pass_wait_s if self.most > 1 else 0.0))

    def choose(self, waiting: Sequence[SecondPassRequest]) -> list[int]:
        lengths, ratio = [len(request.mel) for request in waiting], self.policy.min_length_ratio
        similar = [i for i, length in enumerate(lengths) if ratio * lengths[0] <= length <= lengths[0] / ratio]
        totals = accumulate(lengths[i] for i in similar)
        fitting = [
            i for i, total in zip(similar, totals, strict=True) if i == 0 or total <= self.policy.max_batch_mel_frames
        ]
        return fitting[: self.most]


class BatchRunner:
    """Runs the model for all streams of one engine, on threads of its own: a `ModelRunner`.

    Steps have as many threads as there are cores, and searches and second passes, which are longer, as many of their
    own, so that none waits for the others. On a GPU steps have one thread, whose batches are the larger.
    """

    def __init__(self, engine: Engine, threads: int | None = None, policy: BatchPolicy = BatchPolicy()) -> None:
        self.engine, self.load_policy = engine, LoadPolicy()
        threads = threads or cores()
        self.lag = 0.0  # seconds from a result to its stream's going on; a server measures and sets it
        self.steps: BatchPool[StepRequest, StepResult] = BatchPool(
            "steps",
            1 if engine.gpu else threads,
            lambda requests: [run_steps(engine.model, requests)],
            StepRule(policy),
        )
        self.searches = ThreadPoolExecutor(threads, "searches", initializer=set_threads, initargs=(1,))
        self.second_passes: BatchPool[SecondPassRequest, list[Alternative]] = BatchPool(
            "second-passes", threads, self._recognize, SecondPassRule(policy, engine.model.useful_batch)
        )

    def step(self, request: StepRequest) -> Future[StepResult]:
        return self.steps.submit(request)

    def search(self, work: Callable[[], T]) -> Future[T]:
        return self.searches.submit(work)

    def second_pass(self, request: SecondPassRequest) -> Future[list[Alternative]]:
        return self.second_passes.submit(request)

    def deliver_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on results are handed over on this event loop."""
        self.steps.deliver = self.second_passes.deliver = loop.call_soon_threadsafe

    @property
    def delay(self) -> float:
        """Recent seconds from a step's request until its stream goes on."""
        return self.steps.delay + self.lag

    @property
    def preview_interval_steps(self) -> int:
        return self.load_policy.interval_for_delay(self.delay)

    def close(self) -> None:
        """Returns when every request has its result."""
        self.steps.close()
        self.searches.shutdown()
        self.second_passes.close()

    def _recognize(self, batch: list[SecondPassRequest]) -> Iterator[list[list[Alternative]]]:
        return ([sentences] for sentences in self.engine.recognize_batch(batch))
