"""Threads that run batches lose nothing, stay alive, and wait as their rule says."""

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest

from asr.inference.pending import wait_async
from asr.inference.pool import BatchPool

TIMEOUT_S = 60  # after which a test gives up


class AtOnce:
    """Everything that waits, without waiting for more."""

    def start(self, waiting, since, gathered):
        return since

    def choose(self, waiting):
        return list(range(len(waiting)))


class Gathering(AtOnce):
    """As long as the batch before took."""

    def start(self, waiting, since, gathered):
        return gathered


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def __call__(self):
        return self.now


class Gated:
    """A pool whose batches wait for a gate, and the batches so far."""

    def __init__(self):
        self.gate, self.begun, self.batches = threading.Event(), threading.Event(), []
        self.pool = BatchPool("test", 1, self.work, AtOnce())

    def work(self, batch):
        self.begun.set()
        assert self.gate.wait(TIMEOUT_S)
        self.batches.append(batch)
        if "bad" in batch:
            raise ValueError("bad")
        return [[request.upper() for request in batch]]

    def occupy(self):
        """The thread works on one request, so that the next ones must wait."""
        first = self.pool.submit("a")
        assert self.begun.wait(TIMEOUT_S)
        return first


@pytest.fixture
def gated():
    found = Gated()
    yield found
    found.gate.set()
    found.pool.close()


def test_what_waits_is_answered_together(gated):
    first = gated.occupy()
    others = [gated.pool.submit(letter) for letter in "bcd"]
    assert gated.pool.waiting == 3
    gated.gate.set()
    assert [first.result(TIMEOUT_S), *(other.result(TIMEOUT_S) for other in others)] == list("ABCD")
    assert gated.batches == [["a"], ["b", "c", "d"]]


def test_a_failing_batch_fails_alone(gated):
    first = gated.occupy()
    failing = [gated.pool.submit("bad"), gated.pool.submit("b")]
    gated.gate.set()
    assert first.result(TIMEOUT_S) == "A"
    for one in failing:
        with pytest.raises(ValueError, match="bad"):
            one.result(TIMEOUT_S)
    assert gated.pool.submit("c").result(TIMEOUT_S) == "C"


def test_a_result_does_not_wait_for_the_others_of_its_batch():
    begun, gates = threading.Event(), [threading.Event(), threading.Event()]

    def work(batch):
        yield ["first"]
        begun.set()
        assert gates[len(batch) - 1].wait(TIMEOUT_S)
        if len(batch) == 2:
            raise ValueError("later")

    pool = BatchPool("test", 1, work, AtOnce())
    assert pool.submit("alone").result(TIMEOUT_S) == "first"
    assert begun.wait(TIMEOUT_S)
    asked = [pool.submit("a"), pool.submit("b")]  # together, since the thread is not free yet
    gates[0].set()
    assert asked[0].result(TIMEOUT_S) == "first" and not asked[1].done()
    gates[1].set()
    with pytest.raises(ValueError, match="later"):
        asked[1].result(TIMEOUT_S)
    pool.close()


def test_what_was_cancelled_is_not_worked_on(gated):
    first = gated.occupy()
    cancelled, kept = gated.pool.submit("b"), gated.pool.submit("c")
    assert cancelled.cancel() and not first.cancel()
    gated.gate.set()
    assert kept.result(TIMEOUT_S) == "C"
    assert gated.batches == [["a"], ["c"]]
    with pytest.raises(CancelledError):
        cancelled.result(0)


def test_closing_answers_everything_first(gated):
    asked = [gated.pool.submit(letter) for letter in "abcdef"]
    gated.gate.set()
    gated.pool.close()
    assert [one.result(0) for one in asked] == list("ABCDEF")
    with pytest.raises(RuntimeError, match="closed"):
        gated.pool.submit("g")


def test_a_batch_gathers_for_as_long_as_the_one_before_it_took():
    clock, batches, figures = Clock(), [], []
    measured = threading.Event()

    def work(batch):
        if not batches:
            clock.now += 2.0
        batches.append(batch)
        return [batch]

    def on_batch(*figure):
        figures.append(figure)
        measured.set()

    pool = BatchPool("test", 1, work, Gathering(), clock)
    pool.on_batch = on_batch
    assert pool.submit("a").result(TIMEOUT_S) == "a"  # alone, so at once
    assert measured.wait(TIMEOUT_S) and figures == [(1, 2.0, 2.0)]
    asked = [pool.submit(letter) for letter in "bc"]  # at 102 s; until 104 s requests gather
    clock.now += 2.0
    asked.append(pool.submit("d"))
    assert [one.result(TIMEOUT_S) for one in asked] == list("bcd")
    assert batches == [["a"], ["b", "c", "d"]]
    pool.close()
    assert figures[1] == (3, 0.0, pytest.approx(4 / 3))
    assert pool.delay == pytest.approx(0.2 + 0.1 * (4 / 3 - 0.2))
    clock.now += 1.0
    assert pool.delay == pytest.approx(0.5 * (0.2 + 0.1 * (4 / 3 - 0.2)))  # it is forgotten while nothing is asked


def test_closing_does_not_wait_for_the_rule():
    pool = BatchPool("test", 1, lambda batch: [batch], Gathering(), clock=Clock())
    assert pool.submit("a").result(TIMEOUT_S) == "a"

    class Patient(AtOnce):
        def start(self, waiting, since, gathered):
            return since + 1e6

    pool.rule = Patient()
    last = pool.submit("b")
    pool.close()
    assert last.result(0) == "b"


def test_an_event_loop_is_woken_once_for_a_batch(gated):
    deliveries = []

    async def ask_all():
        loop, here = asyncio.get_running_loop(), threading.get_ident()

        def deliver(hand_over):
            deliveries.append(threading.get_ident() != here)
            loop.call_soon_threadsafe(hand_over)

        gated.pool.deliver = deliver

        def ask(letter):
            result = yield gated.pool.submit(letter)
            return result, threading.get_ident() == here

        waiting = [asyncio.create_task(wait_async(ask(letter))) for letter in "abcd"]
        await asyncio.sleep(0)
        gated.gate.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(ask_all()) == [(letter, True) for letter in "ABCD"]
    assert deliveries in ([True], [True, True])
