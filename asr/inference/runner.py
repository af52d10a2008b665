"""Runs the model for live streams: on the caller's thread here, on threads that share batches in `batching`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from asr.inference.engine import Engine, SecondPassRequest
from asr.inference.steps import StepRequest, StepResult, run_steps
from asr.text.results import Alternative

T = TypeVar("T")


class ModelRunner(Protocol):
    """Runs steps, searches and second passes of any number of streams."""

    @property
    def preview_interval_steps(self) -> int:
        """Steps from one preview of a stream to the next, at least; it grows with the load."""

    def step(self, request: StepRequest) -> Future[StepResult]: ...

    def search(self, work: Callable[[], T]) -> Future[T]:
        """A search that costs so much that those of several streams run beside each other."""

    def second_pass(self, request: SecondPassRequest) -> Future[list[Alternative]]:
        """An utterance's sentences, the best first, times from its first frame; none where nothing is said."""


class InlineRunner:
    """Runs steps and searches at once, on the caller's thread, and second passes on the engine's threads."""

    preview_interval_steps = 1

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def step(self, request: StepRequest) -> Future[StepResult]:
        done: Future[StepResult] = Future()
        done.set_result(run_steps(self.engine.model, [request])[0])
        return done

    def search(self, work: Callable[[], T]) -> Future[T]:
        done: Future[T] = Future()
        done.set_result(work())
        return done

    def second_pass(self, request: SecondPassRequest) -> Future[list[Alternative]]:
        return self.engine.workers.submit(lambda: next(self.engine.recognize_batch([request])))
