"""Streams that share batches say what they say alone; the threads that run batches lose nothing and stay alive."""
import asyncio
import copy
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from asr.inference import batching
from asr.inference.batching import Batcher, Pool, can_wait, drive, hurried_first, similar
from asr.inference.recognizer import load
from asr.inference.steps import Turn
from asr.model.latency import Latency
from asr.text.results import Final

RATE = 16_000


def everything(waiting: list) -> list[int]:
    return list(range(len(waiting)))


@pytest.fixture
def gated():
    """A pool whose batches wait for a gate, and the batches so far."""
    gate, batches = threading.Event(), []

    def work(batch):
        gate.wait(10)
        batches.append(batch)
        if "bad" in batch:
            raise ValueError("bad")
        return [[question.upper() for question in batch]]

    pool = Pool("test", 1, work, everything)
    yield pool, gate, batches
    gate.set()
    pool.close()


def begun(pool):
    """When the first question is being worked on, so that the next ones must wait."""
    until = time.monotonic() + 10
    while pool.waiting and time.monotonic() < until:
        time.sleep(0.001)


def test_what_waits_is_answered_together(gated):
    pool, gate, batches = gated
    first = pool.ask("a")
    begun(pool)
    others = [pool.ask(letter) for letter in "bcd"]
    assert pool.waiting == 3
    gate.set()
    assert [first.result(10), *(other.result(10) for other in others)] == list("ABCD")
    assert batches == [["a"], ["b", "c", "d"]]


def test_a_failing_batch_fails_alone(gated):
    pool, gate, _ = gated
    first = pool.ask("a")
    begun(pool)
    failing = [pool.ask("bad"), pool.ask("b")]
    gate.set()
    assert first.result(10) == "A"
    for one in failing:
        with pytest.raises(ValueError, match="bad"):
            one.result(10)
    assert pool.ask("c").result(10) == "C"


def test_an_answer_does_not_wait_for_the_others_of_its_batch():
    gates = [threading.Event(), threading.Event()]

    def work(batch):
        yield ["first"]
        gates[len(batch) - 1].wait(10)
        if len(batch) == 2:
            raise ValueError("later")

    pool = Pool("test", 1, work, everything)
    assert pool.ask("alone").result(10) == "first"
    asked = [pool.ask("a"), pool.ask("b")]  # together, since the thread is not free yet
    gates[0].set()
    assert asked[0].result(10) == "first" and not asked[1].done()
    gates[1].set()
    with pytest.raises(ValueError, match="later"):
        asked[1].result(10)
    pool.close()


def test_what_was_given_up_is_not_worked_on(gated):
    pool, gate, batches = gated
    first = pool.ask("a")
    begun(pool)
    given_up, kept = pool.ask("b"), pool.ask("c")
    assert given_up.cancel() and not first.cancel()
    gate.set()
    assert kept.result(10) == "C"
    assert batches == [["a"], ["c"]]
    with pytest.raises(CancelledError):
        given_up.result(0)


def test_closing_answers_everything_first(gated):
    pool, gate, _ = gated
    asked = [pool.ask(letter) for letter in "abcdef"]
    gate.set()
    pool.close()
    assert [one.result(0) for one in asked] == list("ABCDEF")
    with pytest.raises(RuntimeError, match="closed"):
        pool.ask("g")


def test_a_batch_gathers_for_as_long_as_the_one_before_it_took():
    batches = []

    def work(batch):
        if not batches:
            time.sleep(2.0)
        batches.append(batch)
        return [batch]

    pool = Pool("test", 1, work, everything, rest=10.0)
    assert pool.ask("a").result(10) == "a"  # alone, so at once
    asked = []
    for letter in "bcd":
        asked.append(pool.ask(letter))
        time.sleep(0.05)
    assert [one.result(10) for one in asked] == list("bcd")
    assert batches == [["a"], ["b", "c", "d"]]
    assert pool.delay > 0
    pool.close()


def test_an_event_loop_is_woken_once_for_a_batch(gated):
    pool, gate, _ = gated
    deliveries = []

    async def ask_all():
        loop, here = asyncio.get_running_loop(), threading.get_ident()

        def deliver(answer):
            deliveries.append(threading.get_ident() != here)
            loop.call_soon_threadsafe(answer)

        pool.deliver = deliver

        def ask(letter):
            answer = yield pool.ask(letter)
            return answer, threading.get_ident() == here

        waiting = [asyncio.create_task(drive(ask(letter))) for letter in "abcd"]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(ask_all()) == [(letter, True) for letter in "ABCD"]
    assert deliveries in ([True], [True, True])


def test_second_passes_are_batched_with_others_of_about_their_length():
    waiting = [(torch.zeros(n, 2), None) for n in (100, 300, 90, 160, 170, 60, 61, 62, 63)]
    assert similar(4, waiting) == [0, 2, 3, 5]
    assert similar(2, waiting) == [0, 2]
    assert similar(4, waiting[1:]) == [0]
    long = [(torch.zeros(n, 2), None) for n in (1900, 1700, 1300)]
    assert similar(4, long) == [0]  # so that others do not wait for long


def turn(look: bool = False, last: bool = False) -> Turn:
    return Turn(SimpleNamespace(), torch.zeros(16, 2), Latency(16, 8), last, look)


def test_turns_that_somebody_waits_for_come_first():
    waiting = [turn(), turn(look=True), turn(), turn(last=True), turn(), turn()]
    assert hurried_first(4, waiting) == [1, 3, 0, 2]
    assert hurried_first(1, waiting) == [1]
    crowd = [turn(look=i > 3) for i in range(batching.CROWD + 1)]  # then none must wait for ever
    assert hurried_first(3, crowd) == [0, 1, 2]


def test_chunks_in_the_midst_of_speech_wait_for_each_other():
    enough = batching.ENOUGH_TURNS
    assert can_wait([turn()] * (enough - 1))
    assert not can_wait([turn()] * enough)
    assert not can_wait([turn(), turn(look=True)]) and not can_wait([turn(last=True)])


def test_the_patient_wait_for_others_until_one_is_hurried_or_patience_ends(monkeypatch):
    monkeypatch.setattr(batching, "PATIENCE", 0.3)
    pool = Pool("test", 1, lambda batch: [[f"{letter}{len(batch)}" for letter in batch]], everything,
                patient=lambda waiting: "!" not in waiting)
    try:
        began = time.monotonic()
        patient = [pool.ask(letter) for letter in "ab"]
        time.sleep(0.05)
        assert not patient[0].done()
        hurried = pool.ask("!")
        assert [answer.result(10) for answer in (*patient, hurried)] == ["a3", "b3", "!3"]
        assert time.monotonic() - began < 0.25
        began = time.monotonic()
        assert pool.ask("c").result(10) == "c1"
        assert time.monotonic() - began > 0.25
        last = pool.ask("d")  # closing does not wait
    finally:
        pool.close()
    assert last.result(0) == "d1"


@pytest.fixture(scope="module", params=[False, True], ids=["float", "int8"])
def recognizer(request):
    """In both precisions, of which servers use the latter."""
    return load(device="cpu", int8=request.param)


@pytest.fixture(scope="module")
def shared(recognizer):
    """A recognizer whose streams share batches; the spied sizes of its batches of turns."""
    served = copy.copy(recognizer)
    served.work = batcher = Batcher(served, threads=1)
    sizes = []
    batcher.turns.on_batch = lambda size, seconds, delay: sizes.append(size)
    yield served, sizes
    batcher.close()


def events(stream, samples):
    found = [event for block in np.split(samples, range(1600, len(samples), 1600)) for event in stream.accept(block)]
    return found + stream.finish()


def finals(found) -> list[tuple[str, float, float]]:
    return [(word.text, word.start, word.end) for event in found if isinstance(event, Final) for word in event.words]


@pytest.fixture(scope="module")
def spoken(clips):
    """Four sentences of different lengths, each followed by a pause that ends it."""
    names = ("commonvoice-2", "commonvoice-4", "kathleen-0", "kathleen-1")
    chosen = [clip for clip in clips if clip.path.stem in names]
    return [np.concatenate([clip.samples, np.zeros(RATE, np.float32)]) for clip in chosen]


@pytest.fixture(scope="module")
def alone(recognizer, spoken):
    return [finals(events(recognizer.stream(), samples)) for samples in spoken]


def test_threads_that_share_batches_say_what_they_say_alone(shared, spoken, alone):
    served, sizes = shared
    sizes.clear()
    with ThreadPoolExecutor(len(spoken)) as threads:
        got = list(threads.map(lambda samples: finals(events(served.stream(), samples)), spoken))
    assert got == alone and all(got)
    assert max(sizes) > 1


def test_coroutines_that_share_batches_say_what_they_say_alone(shared, spoken, alone):
    served, sizes = shared
    sizes.clear()

    async def speak(samples):
        stream, found = served.stream(), []
        for block in np.split(samples, range(4000, len(samples), 4000)):
            found += await drive(stream.accepting(block))
        return finals(found + await drive(stream.finishing()))

    async def all_of_them():
        return await asyncio.gather(*(speak(samples) for samples in spoken))

    assert asyncio.run(all_of_them()) == alone
    assert max(sizes) > 1


def test_under_load_looks_thin_out_and_finals_stay(shared, spoken, alone, monkeypatch):
    """Utterances end at the same frame, whatever is left out, and what is left out is most."""
    served, _ = shared
    asked = []
    ask = served.work.turn

    def turn(one):
        asked.append((one.look, ask(one)))
        return asked[-1][1]

    monkeypatch.setattr(served.work, "turn", turn)
    counts = []
    for lag in (0.0, 10.0):
        monkeypatch.setattr(Batcher, "delay", lag)
        asked.clear()
        assert finals(events(served.stream(), spoken[1])) == alone[1]
        idle = [one for one in asked if not one[0] and not one[1].result().committed]
        counts.append((sum(look for look, _ in asked), len(asked), len(idle)))
    assert served.work.preview_every == batching.FEWEST_PREVIEWS
    (all_looks, steps, idle), (few, left, _) = counts
    assert idle == 0 and few < 0.5 * all_looks  # whoever is at ease sees everything at every step
    assert left < steps  # steps with nothing to do are taken together
