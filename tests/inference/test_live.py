"""A live session around a stream made of paper; then the real engine gives what a `Stream` alone gives."""
import threading
import time

import numpy as np
import pytest

from asr.errors import AudioError, HotwordError
from asr.inference import live
from asr.inference.live import LiveSession
from asr.model.latency import PRESETS, Latency
from asr.text.results import Final, Partial, Word

RATE = 1_000
SECOND = np.full(RATE, 0.5, np.float32)


class FakeStream:
    """One partial for each `accept`, one final at the end; both say how many samples were heard."""

    def __init__(self, recognizer, latency, hotwords):
        self.recognizer, self.latency, self.hotwords = recognizer, latency, hotwords
        self.preview_every, self.samples = 1, 0

    def accept(self, samples):
        self.recognizer.gate.wait(10)
        time.sleep(self.recognizer.slowness)
        self.samples += len(samples)
        self.recognizer.seen.append((len(samples), self.preview_every, self.latency, self.hotwords))
        return [Partial(self._words(), 0.0)]

    def finish(self):
        return [Final(self._words(), 0.0, self.samples / RATE)]

    def _words(self):
        return (Word(str(self.samples), 0.0, self.samples / RATE, 1.0),)


class FakeRecognizer:
    latency, hotwords, slowness = PRESETS["fast"], (), 0.0

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.seen = []

    def stream(self, sample_rate, latency, hotwords):
        return FakeStream(self, latency, hotwords)

    def parse_hotwords(self, hotwords):
        if "" in hotwords:
            raise HotwordError("empty")
        return tuple(hotwords)

    def decoder(self, hotwords):
        pass


@pytest.fixture
def recognizer():
    return FakeRecognizer()


def test_everything_pushed_is_recognised_and_flushed(recognizer):
    events = []
    with LiveSession(recognizer, RATE, lambda event, lag: events.append(event)) as session:
        for _ in range(10):
            session.push((SECOND[:100] * 30_000).astype(np.int16))
    assert events[-1].text == "1000"
    assert isinstance(events[-1], Final)
    assert session.stats.lag == 0 and session.stats.heard == 1.0


def test_push_never_waits_and_a_full_queue_is_counted(recognizer, monkeypatch):
    monkeypatch.setattr(live, "LONGEST_QUEUE", 3.0)
    recognizer.gate.clear()  # the recogniser hangs
    events = []
    session = LiveSession(recognizer, RATE, lambda event, lag: events.append(event))
    began = time.monotonic()
    for _ in range(5):
        session.push(SECOND)
    assert time.monotonic() - began < 0.5
    assert (session.stats.heard, session.stats.lag, session.stats.dropped) == (5.0, 3.0, 2.0)
    recognizer.gate.set()
    while session.stats.lag:
        time.sleep(0.01)
    session.push(SECOND)
    session.close()
    first, second = (event for event in events if isinstance(event, Final))
    assert (first.text, first.end) == ("3000", 3.0)
    assert (second.text, second.start, second.end) == ("1000", 5.0, 6.0)  # times count what was dropped
    assert second.words[0].start == 5.0


def test_a_patient_source_waits_and_loses_nothing(recognizer, monkeypatch):
    monkeypatch.setattr(live, "LONGEST_QUEUE", 1.0)
    recognizer.slowness = 0.002
    with LiveSession(recognizer, RATE, lambda *_: None) as session:
        for _ in range(50):
            session.push(SECOND[:200], wait=True)
    assert session.stats.dropped == 0
    assert sum(seen[0] for seen in recognizer.seen) == 10_000
    assert {seen[1] for seen in recognizer.seen} == {1}  # no pass is left out, so that results repeat


def test_a_lag_thins_previews_then_enlarges_chunks_and_both_come_back(recognizer):
    recognizer.gate.clear()
    session = LiveSession(recognizer, RATE, lambda *_: None)
    session.push(SECOND[:100])
    time.sleep(0.05)  # the worker holds this one
    for _ in range(40):
        session.push(SECOND[:100])
    recognizer.gate.set()
    session.close()
    sizes, every, latencies, _ = zip(*recognizer.seen, strict=True)
    assert max(sizes) > 500  # what waits is taken together
    assert every[0] == 1 and max(every) > 4 and every[-1] == 1
    assert latencies[0] == PRESETS["fast"] and PRESETS["accurate"] in latencies and latencies[-1] == PRESETS["fast"]
    assert not session.stats.behind


def test_settings_change_while_it_runs(recognizer):
    with LiveSession(recognizer, RATE, lambda *_: None, latency="balanced") as session:
        session.set_latency("8,2")
        session.set_hotwords(["rill"])
        session.push(SECOND)
    assert recognizer.seen[-1][2:] == (Latency(8, 2), ("rill",))
    for wrong in ("offline", "nonsense"):
        with pytest.raises(ValueError, match=r"choose|not one of"):
            session.set_latency(wrong)
    with pytest.raises(HotwordError):
        session.set_hotwords([""])


def test_close_again_and_without_flush(recognizer):
    recognizer.gate.clear()
    session = LiveSession(recognizer, RATE, lambda *_: None)
    for _ in range(20):
        session.push(SECOND)
    threading.Timer(0.1, recognizer.gate.set).start()
    session.close(flush=False)
    session.close()
    assert sum(seen[0] for seen in recognizer.seen) < 5_000
    session.push(SECOND)  # too late, and no error
    assert session.stats.heard == 20.0


def test_a_failing_listener_ends_the_session(recognizer):
    def fail(event, lag):
        raise OSError("disk full")

    session = LiveSession(recognizer, RATE, fail)
    session.push(SECOND)
    with pytest.raises(OSError, match="disk full"):
        session.close()
    session.push(SECOND, wait=True)  # neither waits for ever nor fails


def test_broken_samples_are_refused_and_the_session_goes_on(recognizer):
    with LiveSession(recognizer, RATE, lambda *_: None) as session:
        with pytest.raises(AudioError):
            session.push(np.array([np.nan], np.float32))
        session.push(np.zeros(0, np.float32))
        session.push(SECOND)
        assert session.stats.level == 0.5
    assert session.stats.heard == 1.0


def test_same_finals_as_a_stream_alone(tmp_path):
    from pathlib import Path

    import soundfile

    from asr.inference.recognizer import load

    sound, rate = soundfile.read(Path(__file__).parents[1] / "clips" / "commonvoice-3.flac", dtype="float32")
    real = load(device="cpu")
    events = []
    with LiveSession(real, rate, lambda event, lag: events.append(event)) as session:
        for start in range(0, len(sound), 800):
            session.push(sound[start:start + 800], wait=True)
    stream = real.stream(rate)
    alone = stream.accept(sound) + stream.finish()
    assert events[-1].to_dict() == alone[-1].to_dict()  # confidences to rounding
    assert len(events) > len(alone)  # partials on the way
