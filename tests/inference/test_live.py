"""A live session around a stream made of paper; then the real engine gives what a `Stream` alone gives."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from asr.errors import AudioError, HotwordError
from asr.inference.live import LiveSession
from asr.inference.load_policy import LoadPolicy
from asr.model.latency import PRESETS, Latency
from asr.text.results import Final
from tests.support import live, streams
from tests.support.live import RATE

SECOND = np.full(RATE, 0.5, np.float32)


class ShortQueue(LiveSession):
    _policy = replace(LoadPolicy(), max_queue_s=3.0)


@pytest.fixture
def fake():
    return live.FakeRecognizer()


def test_everything_pushed_is_recognized_and_flushed(fake):
    events = []
    with LiveSession(fake, RATE, lambda event, lag: events.append(event)) as session:
        for _ in range(10):
            session.push((SECOND[:100] * 30_000).astype(np.int16))
    assert events[-1].text == "1000"
    assert isinstance(events[-1], Final)
    assert session.stats.lag == 0 and session.stats.heard == 1.0


def test_push_never_waits_and_a_full_queue_is_counted(fake):
    fake.gate.clear()  # the recognizer hangs
    events = []
    session = ShortQueue(fake, RATE, lambda event, lag: events.append(event))
    for _ in range(5):
        session.push(SECOND)
    assert not fake.seen  # it hung all the while
    assert (session.stats.heard, session.stats.lag, session.stats.dropped) == (5.0, 3.0, 2.0)
    fake.gate.set()
    session.push(SECOND[:1], wait=True)  # returns when the three seconds are recognized
    session.push(SECOND[1:], wait=True)
    session.close()
    first, second = (event for event in events if isinstance(event, Final))
    assert (first.text, first.end) == ("3000", 3.0)
    assert (second.text, second.start, second.end) == ("1000", 5.0, 6.0)  # times count what was dropped
    assert second.words[0].start == 5.0


def test_a_patient_source_waits_and_loses_nothing(fake):
    with ShortQueue(fake, RATE, lambda *_: None) as session:
        for _ in range(50):
            session.push(SECOND[:200], wait=True)
    assert session.stats.dropped == 0
    assert sum(seen[0] for seen in fake.seen) == 10_000
    assert {seen[1] for seen in fake.seen} == {1}  # no preview is left out, so that results repeat


def test_a_lag_thins_previews_then_enlarges_chunks_and_both_come_back(fake):
    fake.gate.clear()
    session = LiveSession(fake, RATE, lambda *_: None)
    session.push(SECOND[:100])
    assert fake.begun.wait(live.TIMEOUT_S)  # the worker holds this one
    for _ in range(40):
        session.push(SECOND[:100])
    fake.gate.set()
    session.close()
    sizes, intervals, latencies, _ = zip(*fake.seen, strict=True)
    assert sizes == (100, 700, 700, 700, 700, 700, 500)  # what waits is taken together
    assert intervals[0] == 1 and intervals[1:] == tuple(sorted(intervals[1:], reverse=True))
    assert intervals[1] == 8 and intervals[-1] == 1
    assert latencies == (PRESETS["fast"], *[PRESETS["accurate"]] * 5, PRESETS["fast"])
    assert not session.stats.behind


def test_settings_change_while_it_runs(fake):
    with LiveSession(fake, RATE, lambda *_: None, latency="balanced") as session:
        session.set_latency("8,2")
        session.set_hotwords(["rill"])
        session.push(SECOND)
    assert fake.seen[-1][2:] == (Latency(8, 2), ("rill",))
    for wrong in ("offline", "nonsense"):
        with pytest.raises(ValueError, match=r"choose|not one of"):
            session.set_latency(wrong)
    with pytest.raises(HotwordError):
        session.set_hotwords([""])


def test_close_again_and_without_flush(fake):
    fake.gate.clear()
    session = LiveSession(fake, RATE, lambda *_: None)
    session.push(SECOND)
    assert fake.begun.wait(live.TIMEOUT_S)
    for _ in range(19):
        session.push(SECOND)
    closing = threading.Thread(target=session.close, kwargs={"flush": False})
    closing.start()
    while not session._closing:
        time.sleep(0.001)
    fake.gate.set()
    closing.join(live.TIMEOUT_S)
    session.close()
    assert [seen[0] for seen in fake.seen] == [RATE]  # the one that the worker held
    session.push(SECOND)  # too late, and no error
    assert session.stats.heard == 20.0


def test_a_failing_listener_ends_the_session(fake):
    def fail(event, lag):
        raise OSError("disk full")

    session = LiveSession(fake, RATE, fail)
    session.push(SECOND)
    with pytest.raises(OSError, match="disk full"):
        session.close()
    session.push(SECOND, wait=True)  # neither waits for ever nor fails


def test_broken_samples_are_refused_and_the_session_goes_on(fake):
    with LiveSession(fake, RATE, lambda *_: None) as session:
        with pytest.raises(AudioError):
            session.push(np.array([np.nan], np.float32))
        session.push(np.zeros(0, np.float32))
        session.push(SECOND)
        assert session.stats.level == 0.5
    assert session.stats.heard == 1.0


def test_same_finals_as_a_stream_alone(recognizer, clips):
    samples = next(clip.samples for clip in clips if clip.path.stem == "commonvoice-3")
    events = []
    with LiveSession(recognizer, streams.RATE, lambda event, lag: events.append(event)) as session:
        for start in range(0, len(samples), 800):
            session.push(samples[start : start + 800], wait=True)
    stream = recognizer.stream()
    alone = stream.accept(samples) + stream.finish()
    assert events[-1].to_dict() == alone[-1].to_dict()  # confidences to rounding
    assert len(events) > len(alone)  # partials on the way
