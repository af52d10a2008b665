"""A session on an event loop, with a stream whose work ends when the test says so."""

import asyncio
from concurrent.futures import Future

import numpy as np
import pytest

from asr.inference.async_session import AsyncSession
from asr.model.latency import PRESETS
from asr.text.results import Final, Partial, Word
from tests.support.clock import Loop, step

RATE = 1000


class FakeStream:
    """Each block waits for a future of its own, and gives the events that it is sent."""

    wanted_s = 0.1  # seconds

    def __init__(self, hotwords=()):
        self.latency, self.hotwords = PRESETS["balanced"], hotwords
        self.blocks, self.futures = [], []

    def accepting(self, samples):
        self.blocks.append(len(samples))
        self.futures.append(Future())
        return (yield self.futures[-1])

    def finishing(self):
        return (yield from self.accepting(np.zeros(0)))


class FakeRecognizer:
    latency, hotwords = PRESETS["balanced"], ()

    def __init__(self):
        self.streams = []

    def stream(self, sample_rate, *, latency, hotwords, punctuate, alternatives):
        self.streams.append(FakeStream(hotwords))
        return self.streams[-1]


def final(text: str, end: float = 0.1) -> Final:
    return Final((Word(text, 0.0, end, 0.5),), 0.0, end)


def partial(text: str) -> Partial:
    return Partial((Word(text, 0.0, 0.1, 0.5),), 0.0)


def audio(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.int16)


def run(talk, **options):
    """Runs `talk(session, stream, events)` on a `Loop`."""

    async def whole():
        events = []
        session = AsyncSession(FakeRecognizer(), RATE, events.append, **options)
        await talk(session, session.stream, events)
        session.cancel()

    loop = Loop()
    try:
        loop.run_until_complete(whole())
    finally:
        loop.close()


def test_what_came_meanwhile_is_recognized_together():
    async def talk(session, stream, events):
        session.push(audio(0.1))
        await step()
        for _ in range(8):
            session.push(audio(0.05))
        assert session.lag == session.seconds == 0.5
        stream.futures[0].set_result([])
        while len(stream.blocks) < 2:
            await step()
        assert stream.blocks == [100, 100]  # as much as the stream wants
        assert session.lag == 0.4

    run(talk)


def test_nothing_is_begun_with_less_than_the_stream_wants():
    async def talk(session, stream, events):
        stream.wanted_s = 0.25
        for _ in range(2):
            session.push(audio(0.1))
            await session.caught_up(0, 10)
        assert not stream.blocks and session.lag == 0.2
        session.push(audio(0.1))
        await step()
        assert stream.blocks == [300]
        session.push(audio(0.01))
        stream.futures[0].set_result([])
        await session.caught_up(0, 10)
        ending = asyncio.create_task(session.finish())
        for _ in range(3):
            await step()
            stream.futures[-1].done() or stream.futures[-1].set_result([])
        await ending
        assert stream.blocks == [300, 10, 0] and not session.lag

    run(talk)


def test_long_blocks_are_cut():
    async def talk(session, stream, events):
        session.push(audio(0.42))
        while len(stream.blocks) < 3:
            await step()
            if len(stream.blocks):
                stream.futures[-1].done() or stream.futures[-1].set_result([])
        assert stream.blocks == [160, 160, 100]

    run(talk)


def test_events_are_reported_in_order():
    async def talk(session, stream, events):
        expected = []
        for new in ([partial("a")], [final("a b"), partial("c")], [final("c")]):
            session.push(audio(0.1))
            await step()
            stream.futures[-1].set_result(new)
            await session.caught_up(0, 10)
            expected += new
            assert events == expected

    run(talk)


def test_patience_ends_where_little_waits():
    async def talk(session, stream, events):
        loop = asyncio.get_running_loop()
        session.push(audio(0.5))
        waiting = asyncio.create_task(session.caught_up(max_lag=1.0, patience=0.05))
        await step()
        assert not waiting.done()
        await loop.advance(0.05)
        assert waiting.done() and session.lag == 0.5
        session.push(audio(0.6))
        held_up = asyncio.create_task(session.caught_up(max_lag=1.0, patience=0.05))
        await step()
        await loop.advance(0.1)
        assert not held_up.done()  # 1.1 s wait
        stream.futures[0].set_result([])
        await held_up
        assert session.lag == 0.94

    run(talk)


def test_what_follows_dropped_audio_is_recognized_at_its_own_time():
    async def talk(session, stream, events):
        session.push(audio(0.1))
        session.drop(audio(0.3))
        session.push(audio(0.1))
        assert (session.seconds, session.lag, session.dropped) == (0.5, 0.2, 0.3)
        await step()
        stream.futures[0].set_result([])
        while len(stream.futures) < 2:
            await step()
        assert stream.blocks == [100, 0]  # the first stream is finished
        stream.futures[1].set_result([final("a")])
        while session.stream is stream:
            await step()
        await step()
        session.stream.futures[0].set_result([partial("b"), final("b")])
        await session.caught_up(0, 10)
        assert [(event.text, event.start) for event in events] == [("a", 0.0), ("b", 0.4), ("b", 0.4)]
        assert events[-1].end == 0.5 and dropped == [0.3]

    dropped: list[float] = []
    run(talk, on_dropped=dropped.append)


def test_settings_act_on_the_audio_that_follows():
    async def talk(session, stream, events):
        session.push(audio(0.1))
        await step()
        session.set_latency("fast")
        session.set_hotwords(("rill",))
        assert stream.latency == PRESETS["balanced"] and stream.hotwords == ()
        session.push(audio(0.1))
        stream.futures[0].set_result([])
        while len(stream.blocks) < 2:
            await step()
        assert stream.latency == PRESETS["fast"] and stream.hotwords == ("rill",)
        with pytest.raises(ValueError, match="full context"):
            session.set_latency("offline")

    run(talk)


def test_the_end_makes_all_final_also_for_a_caller_that_is_cancelled():
    async def talk(session, stream, events):
        session.push(audio(0.1))
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
        await second
        assert [event.text for event in events] == ["the end"] and not session.lag

    run(talk)


def test_an_error_reaches_every_caller():
    async def talk(session, stream, events):
        session.push(audio(0.1))
        waiting = asyncio.create_task(session.caught_up(0, 10))
        await step()
        stream.futures[0].set_exception(MemoryError("no room"))
        for call in (lambda: waiting, session.finish):
            with pytest.raises(MemoryError, match="no room"):
                await call()
        for call in (session.push, session.drop):
            with pytest.raises(MemoryError, match="no room"):
                call(audio(0.1))

    run(talk)


def test_nothing_is_recognized_for_a_client_that_has_gone():
    async def talk(session, stream, events):
        session.push(audio(0.1))
        await step()
        session.push(audio(0.1))
        session.cancel()
        await step()
        assert stream.futures[0].cancelled() and len(stream.blocks) == 1

    run(talk)


def test_recognized_audio_is_reported():
    async def talk(session, stream, events):
        session.push(audio(0.1))
        await step()
        assert recognized == []
        stream.futures[0].set_result([])
        await session.caught_up(0, 10)
        assert recognized == [0.1]

    recognized: list[float] = []
    run(talk, on_recognized=recognized.append)


@pytest.mark.parametrize("sizes", [[0], [1], [7, 0, 90]])
def test_short_and_empty_blocks_wait(sizes):
    async def talk(session, stream, events):
        for size in sizes:
            session.push(np.zeros(size, np.int16))
        await session.caught_up(0, 10)
        assert not stream.blocks and session.seconds == sum(sizes) / RATE

    run(talk)
