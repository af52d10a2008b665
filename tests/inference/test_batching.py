"""Streams that share batches say what they say alone; rules say what shares a batch, and how long it waits."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from asr.inference.batching import BatchPolicy, BatchRunner, SecondPassRule, StepRule
from asr.inference.engine import SecondPassRequest
from asr.inference.load_policy import LoadPolicy
from asr.inference.pending import wait_async
from asr.inference.recognizer import load
from asr.inference.steps import StepRequest
from asr.model.latency import Latency
from tests.support.streams import play, silence, timed_words

POLICY = BatchPolicy()


def request(preview: bool = False, last: bool = False) -> StepRequest:
    return StepRequest(SimpleNamespace(), np.zeros((16, 2)), Latency(16, 8), last, preview)


def utterances(*lengths: int) -> list:
    return [SecondPassRequest(np.zeros((n, 2)), None, 1) for n in lengths]


def test_second_passes_are_batched_with_others_of_about_their_length():
    waiting = utterances(100, 300, 90, 160, 170, 60, 61, 62, 63)
    assert SecondPassRule(POLICY, 4).choose(waiting) == [0, 2, 3, 5]
    assert SecondPassRule(POLICY, 2).choose(waiting) == [0, 2]
    assert SecondPassRule(POLICY, 4).choose(waiting[1:]) == [0]
    assert SecondPassRule(POLICY, 4).choose(utterances(1900, 1700, 1300)) == [0]  # so that others do not wait for long


def test_urgent_steps_come_first():
    waiting = [request(), request(preview=True), request(), request(last=True), request(), request()]
    assert StepRule(BatchPolicy(steps_per_batch=4)).choose(waiting) == [1, 3, 0, 2]
    assert StepRule(BatchPolicy(steps_per_batch=1)).choose(waiting) == [1]
    crowd = [request(preview=i > 3) for i in range(POLICY.crowd_steps + 1)]  # then none must wait for ever
    assert StepRule(POLICY).choose(crowd) == [0, 1, 2]


def test_a_batch_waits_as_long_as_the_one_before_took_up_to_a_limit():
    urgent = [request(preview=True)]
    for rule, waiting, limit in (
        (StepRule(POLICY), urgent, POLICY.max_step_wait_s),
        (SecondPassRule(POLICY, 4), utterances(9), POLICY.max_second_pass_wait_s),
        (SecondPassRule(POLICY, 1), utterances(9), 0.0),
    ):
        assert rule.start(waiting, since=10.0, gathered=9.0) == 9.0  # whoever comes alone does not wait
        assert rule.start(waiting, since=10.0, gathered=20.0) == 10.0 + limit


def test_chunks_amid_speech_wait_for_each_other():
    rule, most = StepRule(POLICY), POLICY.steps_per_batch

    def waits(waiting):
        return rule.start(waiting, since=10.0, gathered=0.0) == 10.0 + POLICY.patience_s

    assert waits([request()] * (most - 1)) and not waits([request()] * most)
    assert not waits([request(), request(preview=True)]) and not waits([request(last=True)])


@pytest.fixture(scope="module", params=[False, True], ids=["float", "int8"])
def recognizer(request):
    """In both precisions, of which servers use the latter."""
    return load(device="cpu", int8=request.param, threads=1)


@pytest.fixture(scope="module")
def shared(recognizer):
    """A recognizer whose streams share batches, its runner, and the sizes of the batches of steps."""
    runner = BatchRunner(recognizer.engine, threads=1)
    sizes = []
    runner.steps.on_batch = lambda size, seconds, delay: sizes.append(size)
    yield recognizer.with_runner(runner), runner, sizes
    runner.close()


@pytest.fixture(scope="module")
def spoken(clips):
    """Four sentences of different lengths, each followed by a pause that ends it."""
    names = ("commonvoice-2", "commonvoice-4", "kathleen-0", "kathleen-1")
    return [np.concatenate([clip.samples, silence(1)]) for clip in clips if clip.path.stem in names]


@pytest.fixture(scope="module")
def alone(recognizer, spoken):
    return [timed_words(play(recognizer.stream(), samples)) for samples in spoken]


def test_threads_that_share_batches_say_what_they_say_alone(shared, spoken, alone):
    recognizer, _, sizes = shared
    sizes.clear()
    with ThreadPoolExecutor(len(spoken)) as threads:
        got = list(threads.map(lambda samples: timed_words(play(recognizer.stream(), samples)), spoken))
    assert got == alone and all(got)
    assert max(sizes) > 1


def test_coroutines_that_share_batches_say_what_they_say_alone(shared, spoken, alone):
    recognizer, _, sizes = shared
    sizes.clear()

    async def speak(samples):
        stream, found = recognizer.stream(), []
        for block in np.split(samples, range(4000, len(samples), 4000)):
            found += await wait_async(stream.accepting(block))
        return timed_words(found + await wait_async(stream.finishing()))

    async def all_of_them():
        return await asyncio.gather(*(speak(samples) for samples in spoken))

    assert asyncio.run(all_of_them()) == alone
    assert max(sizes) > 1


def test_under_load_previews_thin_out_and_finals_stay(shared, spoken, alone, monkeypatch):
    """Utterances end at the same frame, whatever is left out, and most previews are."""
    recognizer, runner, _ = shared
    asked = []
    step = runner.step

    def spy(one):
        asked.append((one.preview, step(one)))
        return asked[-1][1]

    monkeypatch.setattr(runner, "step", spy)
    counts = []
    for delay in (0.0, 10.0):
        monkeypatch.setattr(BatchRunner, "delay", delay)
        asked.clear()
        assert timed_words(play(recognizer.stream(), spoken[1])) == alone[1]
        idle = [one for one in asked if not one[0] and not one[1].result().committed]
        counts.append((sum(preview for preview, _ in asked), len(asked), len(idle)))
    assert runner.preview_interval_steps == LoadPolicy().max_delay_interval_steps
    (all_previews, steps, idle), (few, left, _) = counts
    assert idle == 0 and few < 0.5 * all_previews  # whoever is at ease sees everything at every step
    assert left < steps  # steps with nothing to do are taken together
