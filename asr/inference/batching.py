"""Dynamic batching: what many live streams ask of the model at about the same time runs as one batch.

    recognizer.work = batcher = Batcher(recognizer)

After that every stream of the recognizer asks the batcher: threads wait for its futures in `Stream.accept`, coroutines
in `drive`. The busier it is, the more turns wait together, and the larger and cheaper the batches become; and the
more provisional passes, which cost several times the committed work, are left out.
"""
from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, islice
from typing import Generic, TypeVar

import torch
from torch import Tensor

from asr.decoding.decoder import Decoder
from asr.inference.engine import Engine
from asr.inference.steps import Heard, Turn, take
from asr.inference.stream import Steps
from asr.model.hardware import cores
from asr.text.results import Word

REST = 0.05  # seconds that a turn waits for others, at most
REST_PASSES = 0.06  # the same for second passes
PATIENCE = 0.2  # seconds that turns which nobody waits for do so, while they are fewer than
ENOUGH_TURNS = 3  # in one batch, which more of them would make longer but hardly cheaper
CROWD = 16  # turns that wait: more of them are served as they came
LONGEST_PASS = 2000  # mel frames of the utterances in one batch together, so that the next ones do not wait for long
SIMILAR = 0.6  # shortest over longest utterance of one batch; the rest of the shorter ones is padding
AT_EASE = 0.02  # seconds that a turn may take; for each `SLOW` more one more provisional pass in a row is left out,
SLOW = 0.002  # so that a turn seldom takes longer than the 0.16 s of sound that it is for
FEWEST_PREVIEWS = 16  # steps from one provisional pass to the next, at most
SMOOTHING = 0.1  # weight of the newest batch in the mean of what a turn takes

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")
Pass = tuple[Tensor, Decoder]  # an utterance's mel frames (T, bands), T ≥ 1, and how it becomes words


def never(questions: list[Q]) -> bool:
    return False


@dataclass(eq=False)
class _Asked(Generic[Q, A]):
    question: Q
    answer: Future[A] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Pool(Generic[Q, A]):
    """Threads that answer questions in batches: those that came while they were busy.

    Args:
        work: a batch of questions → an answer each, in order; those that are known are handed over at once.
        choose: from the waiting questions, longest waiting first → the positions of the next batch, at least one.
        rest: after a batch a thread lets questions gather for as long as that one took, unless one has waited for so
            many seconds: whoever comes alone does not wait, and batches grow with the load.
        patient: whether the waiting questions may all wait for others, for `PATIENCE` seconds.
    """

    def __init__(self, name: str, threads: int, work: Callable[[list[Q]], Iterable[Sequence[A]]],
                 choose: Callable[[list[Q]], list[int]], rest: float = 0.0,
                 patient: Callable[[list[Q]], bool] = never) -> None:
        self.work, self.choose, self.rest, self.patient = work, choose, rest, patient
        # Who hands a batch's answers over: this thread, or an event loop, which is then woken once and not for each.
        self.deliver: Callable[[Callable[[], None]], object] = lambda answer: answer()
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
        ready = 0.0
        while batch := self._take(ready):
            began = time.monotonic()
            waiting = iter(batch)
            try:
                for answers in self.work([asked.question for asked in batch]):
                    self.deliver(partial(_answer, list(islice(waiting, len(answers))), answers))
            except Exception as error:  # whoever asked is told; the thread goes on with the others
                self.deliver(partial(_fail, list(waiting), error))
            self._answered = time.monotonic()
            delay = sum(self._answered - asked.since for asked in batch) / len(batch)
            self._delay += SMOOTHING * (delay - self._delay)
            if self.on_batch:
                self.on_batch(len(batch), self._answered - began, delay)
            ready = 2 * self._answered - began

    def _take(self, ready: float) -> list[_Asked[Q, A]]:
        """The next batch, not before the time `ready`; nothing once all is answered and no more can come."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                questions = [asked.question for asked in self._waiting]
                if questions and not self._closing:
                    since = self._waiting[0].since
                    begin = since + PATIENCE if self.patient(questions) else min(ready, since + self.rest)
                    if (early := begin - time.monotonic()) > 0:
                        self._changed.wait(early)
                        continue  # with those that came meanwhile
                chosen = self.choose(questions) if questions else []
                batch = [self._waiting[i] for i in chosen]
                self._waiting = [asked for i, asked in enumerate(self._waiting) if i not in set(chosen)]
                batch = [asked for asked in batch if asked.answer.set_running_or_notify_cancel()]
                if batch or (self._closing and not self._waiting):
                    return batch


def _answer(batch: list[_Asked[Q, A]], answers: Sequence[A]) -> None:
    for asked, answer in zip(batch, answers, strict=True):
        asked.answer.set_result(answer)


def _fail(batch: list[_Asked[Q, A]], error: Exception) -> None:
    for asked in batch:
        asked.answer.set_exception(error)


class Batcher:
    """Runs the model for all streams of one engine, on threads of its own; see `engine.Work`.

    Turns have as many threads as there are cores, and second passes, which are long, as many of their own, so that
    neither waits for the other; on a GPU turns have one, whose batches are the larger.
    """

    def __init__(self, engine: Engine, threads: int | None = None) -> None:
        self.engine = engine
        threads = threads or cores()
        self.lag = 0.0  # seconds that answers wait until whoever asked goes on; a server measures and sets it
        together = engine.model.together
        self.turns: Pool[Turn, Heard] = Pool("turns", 1 if engine.device.type == "cuda" else threads,
                                             lambda turns: [take(engine.model, turns)],
                                             partial(hurried_first, ENOUGH_TURNS if together else 1), REST,
                                             can_wait if together else never)
        passes = engine.model.enough
        self.passes: Pool[Pass, list[Word]] = Pool("passes", threads, self._recognize, partial(similar, passes),
                                                   REST_PASSES if passes > 1 else 0.0)

    def turn(self, turn: Turn) -> Future[Heard]:
        return self.turns.ask(turn)

    def second_pass(self, mel: Tensor, search: Decoder) -> Future[list[Word]]:
        return self.passes.ask((mel, search))

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on answers are handed over on this event loop."""
        self.turns.deliver = self.passes.deliver = loop.call_soon_threadsafe

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

    def _recognize(self, batch: list[Pass]) -> Iterator[list[list[Word]]]:
        utterances, searches = zip(*batch, strict=True)
        return ([words] for words in self.engine.recognize_whole(utterances, searches))


def hurried_first(most: int, turns: list[Turn]) -> list[int]:
    """Those that look for the end of a pause or at what to show, then those that only commit, which adds little; where
    very many wait, in their order, so that none waits for ever."""
    order = list(range(len(turns)))
    if len(turns) <= CROWD:
        order.sort(key=lambda i: not turns[i].hurried)
    return order[:most]


def can_wait(turns: list[Turn]) -> bool:
    """Whether they are few, and nobody waits for what comes of them: chunks in the midst of speech."""
    return len(turns) < ENOUGH_TURNS and not any(turn.hurried for turn in turns)


def similar(most: int, waiting: list[Pass]) -> list[int]:
    """The second pass that has waited longest, and those that would not make much padding with it."""
    length = len(waiting[0][0])
    others = [i for i, (mel, _) in enumerate(waiting) if SIMILAR * length <= len(mel) <= length / SIMILAR]
    frames = accumulate(len(waiting[i][0]) for i in others)
    return [i for i, total in zip(others, frames, strict=True) if i == 0 or total <= LONGEST_PASS][:most]


async def drive(steps: Steps[T]) -> T:
    """Wait for each future without holding up the event loop."""
    result = None
    while True:
        try:
            future = steps.send(result)
        except StopIteration as end:
            return end.value
        result = await _result(future)


async def _result(future: Future[T]) -> T:
    """As `asyncio.wrap_future`, but an answer that comes on this event loop does not take the way between threads."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    waiting = loop.create_future()

    def wake() -> None:
        if not waiting.done():
            waiting.set_result(None)

    future.add_done_callback(lambda _: wake() if threading.get_ident() == thread else loop.call_soon_threadsafe(wake))
    try:
        await waiting
    except asyncio.CancelledError:
        future.cancel()
        raise
    return future.result()
