import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from asr.audio import replay
from asr.audio.replay import Replay
from asr.errors import AudioError

SOUND = (np.sin(np.arange(16_000) / 10) * 20_000).astype("<i2")  # one second


@pytest.fixture
def wav(tmp_path):
    soundfile.write(tmp_path / "a.wav", SOUND, 16_000)
    return str(tmp_path / "a.wav")


class Clock:
    """A clock on which only waiting takes time, and the event that is waited for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting = lambda: None
        self.stopped = False

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += max(0.0, seconds)
        self.waiting()

    def set(self) -> None:
        self.stopped = True

    def is_set(self) -> bool:
        return self.stopped


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(replay, "time", clock)
    monkeypatch.setattr(replay, "threading", SimpleNamespace(Event=lambda: clock))
    return clock


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_blocks_come_at_the_pace_they_were_spoken(wav, clock, speed):
    blocks, times = [], []
    for block in Replay(wav, speed):
        blocks.append(block)
        times.append(clock.now)
    assert np.abs(np.concatenate(blocks) - SOUND / 2**15).max() < 1e-4
    spoken = np.cumsum([len(block) for block in blocks]) / 16_000 / speed
    assert times == pytest.approx(spoken) and times[-1] == pytest.approx(1 / speed)  # each once it was spoken


def test_as_it_comes(wav, clock):
    assert sum(map(len, Replay(wav, 0))) == 16_000
    assert clock.now == 0


def test_close_ends_it_at_once(wav, clock):
    source = Replay(wav, 0.01)
    clock.waiting = source.close  # by another thread, meanwhile
    assert list(source) == [] and clock.now == pytest.approx(5)  # the first block's wait


def test_raw_file(tmp_path):
    (tmp_path / "a.raw").write_bytes(SOUND.tobytes() + b"\1")  # half a sample at the end
    source = Replay(str(tmp_path / "a.raw"), 0, raw_rate=8_000)
    assert source.sample_rate == 8_000
    assert np.array_equal(np.concatenate(list(source)), SOUND / np.float32(2**15))


@pytest.mark.parametrize("rate", [None, 8_000])
def test_missing_file(rate):
    with pytest.raises(AudioError, match=r"nowhere\.wav: cannot be opened"):
        list(Replay("nowhere.wav", 0, rate))


@pytest.mark.e2e
@pytest.mark.parametrize("rate", ["None", "16000"])
def test_standard_input_in_odd_pieces(wav, rate):
    """Pieces of a pipe do not end where samples end."""
    script = f"from asr.audio.replay import Replay; print(sum(map(len, Replay('-', 0, {rate}))))"
    reader = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    data = Path(wav).read_bytes() if rate == "None" else SOUND.tobytes()
    for start in range(0, len(data), 3_333):
        reader.stdin.write(data[start : start + 3_333])
        reader.stdin.flush()
    out, _ = reader.communicate(timeout=30)
    assert out.split() == [b"16000"]
