"""A session on an event loop, with a stream whose work ends when the test says so."""
import asyncio
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from asr.server.metrics import Metrics
from asr.server.session import Session
from asr.text.results import Final, Partial, Word

RATE = 1000


class FakeStream:
    """Each block waits for a future of its own, and gives the events that it is sent."""

    wants = 0.1  # seconds

    def __init__(self):
        self.resampler = SimpleNamespace(source_rate=RATE)
        self.blocks, self.futures = [], []

    def accepting(self, samples):
        self.blocks.append(len(samples))
        self.futures.append(Future())
        return (yield self.futures[-1])

    def finishing(self):
        return (yield from self.accepting(np.zeros(0)))


def final(text: str, end: float = 0.1) -> Final:
    return Final((Word(text, 0.0, end, 0.5),), 0.0, end)


def partial(text: str) -> Partial:
    return Partial((Word(text, 0.0, 0.1, 0.5),), 0.0)


def sound(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.int16)


def run(talk):
    """Runs `talk(session, stream, step)`; `step` lets the other tasks go on."""

    async def whole():
        stream = FakeStream()
        session = Session(stream, "test", Metrics())

        async def step():
            for _ in range(5):
                await asyncio.sleep(0)

        await talk(session, stream, step)
        session.cancel()

    asyncio.run(whole())


def test_what_came_meanwhile_is_recognised_together():
    async def talk(session, stream, step):
        session.push(sound(0.1))
        await step()
        for _ in range(8):
            session.push(sound(0.05))
        assert session.waiting == 500 and session.seconds == 0.5
        stream.futures[0].set_result([])
        while len(stream.blocks) < 2:
            await step()
        assert stream.blocks == [100, 100]  # as much as the stream wants
        assert session.waiting == 400

    run(talk)


def test_nothing_is_begun_with_less_than_the_stream_wants():
    async def talk(session, stream, step):
        stream.wants = 0.25
        for _ in range(2):
            session.push(sound(0.1))
            await asyncio.wait_for(session.caught_up(0, 10), 1)
        assert not stream.blocks and session.waiting == 200
        session.push(sound(0.1))
        await step()
        assert stream.blocks == [300]
        session.push(sound(0.01))
        stream.futures[0].set_result([])
        await asyncio.wait_for(session.caught_up(0, 10), 1)
        ending = asyncio.create_task(session.finish())
        for _ in range(3):
            await step()
            stream.futures[-1].done() or stream.futures[-1].set_result([])
        await asyncio.wait_for(ending, 10)
        assert stream.blocks == [300, 10, 0] and not session.waiting

    run(talk)


def test_long_blocks_are_cut():
    async def talk(session, stream, step):
        session.push(sound(0.42))
        while len(stream.blocks) < 3:
            await step()
            if len(stream.blocks):
                stream.futures[-1].done() or stream.futures[-1].set_result([])
        assert stream.blocks == [160, 160, 100]

    run(talk)


def test_finals_stay_until_they_are_fetched_and_end_the_partial():
    async def talk(session, stream, step):
        for events, finals, text in (([partial("a")], [], "a"), ([final("a b"), partial("c")], ["a b"], "c"),
                                     ([final("c")], ["a b", "c"], "")):
            session.push(sound(0.1))
            await step()
            stream.futures[-1].set_result(events)
            await session.caught_up(0, 10)
            assert [event.text for event in session.finals] == finals and session.partial == text

    run(talk)


def test_patience_ends_where_little_waits():
    async def talk(session, stream, step):
        loop = asyncio.get_running_loop()
        session.push(sound(0.5))
        began = loop.time()
        await session.caught_up(lag=1.0, patience=0.05)
        assert loop.time() - began >= 0.04 and session.waiting == 500
        session.push(sound(0.6))
        held_up = asyncio.create_task(session.caught_up(lag=1.0, patience=0.05))
        await asyncio.sleep(0.1)
        assert not held_up.done()  # 1.1 s wait
        stream.futures[0].set_result([])
        await asyncio.wait_for(held_up, 10)
        assert session.waiting == 940

    run(talk)


def test_the_end_makes_all_final_also_for_whoever_is_interrupted():
    async def talk(session, stream, step):
        session.push(sound(0.1))
        first = asyncio.create_task(session.finish())
        await step()
        first.cancel()
        await step()
        assert first.cancelled()
        stream.futures[0].set_result([])
        second = asyncio.create_task(session.finish())
        while len(stream.futures) < 2:
            await step()
        stream.futures[1].set_result([final("the end")])
        await asyncio.wait_for(second, 10)
        assert [event.text for event in session.finals] == ["the end"] and not session.waiting

    run(talk)


def test_a_fault_reaches_whoever_waits():
    async def talk(session, stream, step):
        session.push(sound(0.1))
        waiting = asyncio.create_task(session.caught_up(0, 10))
        await step()
        stream.futures[0].set_exception(MemoryError("no room"))
        with pytest.raises(MemoryError):
            await asyncio.wait_for(waiting, 10)
        with pytest.raises(MemoryError):
            await session.finish()

    run(talk)


def test_whoever_is_gone_has_nothing_recognised_any_more():
    async def talk(session, stream, step):
        session.push(sound(0.1))
        await step()
        session.push(sound(0.1))
        session.cancel()
        await step()
        assert stream.futures[0].cancelled() and len(stream.blocks) == 1

    run(talk)


def test_final_latency_is_measured_from_the_arrival_of_the_last_word(monkeypatch):
    async def talk(session, stream, step):
        clock = iter([10.0, 20.0, 30.0, 33.0])
        monkeypatch.setattr("asr.server.session.time", SimpleNamespace(monotonic=lambda: next(clock, 33.0)))
        for _ in range(3):  # sound up to 0.1, 0.2 and 0.3 s arrives at 10, 20 and 30 s
            session.push(sound(0.1))
        await step()
        stream.futures[0].set_result([final("a", end=0.15)])
        while not session.finals:
            await step()
        registry = session.metrics.registry
        assert registry.get_sample_value("rill_final_latency_seconds_sum") == 13.0

    run(talk)
