import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.replay import Replay
from asr.errors import AudioError

SOUND = (np.sin(np.arange(16_000) / 10) * 20_000).astype("<i2")  # one second


@pytest.fixture
def wav(tmp_path):
    soundfile.write(tmp_path / "a.wav", SOUND, 16_000)
    return str(tmp_path / "a.wav")


@pytest.mark.parametrize(("speed", "seconds"), [(1.0, 1.0), (4.0, 0.25)])
def test_blocks_come_at_the_pace_they_were_spoken(wav, speed, seconds):
    blocks, times = [], []
    began = time.monotonic()
    for block in Replay(wav, speed):
        blocks.append(block)
        times.append(time.monotonic() - began)
    assert np.abs(np.concatenate(blocks) - SOUND / 2**15).max() < 1e-4
    assert seconds - 0.02 <= times[-1] < seconds + 0.5
    spoken = np.cumsum([len(block) for block in blocks]) / 16_000 / speed
    assert np.all(np.array(times) - spoken > -0.002)  # never before it was spoken


def test_as_it_comes(wav):
    began = time.monotonic()
    assert sum(map(len, Replay(wav, 0))) == 16_000
    assert time.monotonic() - began < 0.5


def test_close_ends_it_at_once(wav):
    replay = Replay(wav, 0.01)
    threading.Timer(0.1, replay.close).start()
    began = time.monotonic()
    list(replay)
    assert time.monotonic() - began < 2


def test_raw_file(tmp_path):
    (tmp_path / "a.raw").write_bytes(SOUND.tobytes() + b"\1")  # half a sample at the end
    replay = Replay(str(tmp_path / "a.raw"), 0, raw_rate=8_000)
    assert replay.sample_rate == 8_000
    assert np.array_equal(np.concatenate(list(replay)), SOUND / np.float32(2**15))


@pytest.mark.parametrize("rate", [None, 8_000])
def test_missing_file(rate):
    with pytest.raises(AudioError, match=r"nowhere\.wav: cannot be opened"):
        list(Replay("nowhere.wav", 0, rate))


@pytest.mark.parametrize("rate", ["None", "16000"])
def test_standard_input_in_odd_pieces(wav, rate):
    """Pieces of a pipe do not end where samples end."""
    script = f"from asr.audio.replay import Replay; print(sum(map(len, Replay('-', 0, {rate}))))"
    reader = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              cwd=Path(__file__).parents[2])
    data = Path(wav).read_bytes() if rate == "None" else SOUND.tobytes()
    for start in range(0, len(data), 3_333):
        reader.stdin.write(data[start:start + 3_333])
        reader.stdin.flush()
    out, _ = reader.communicate(timeout=30)
    assert out.split() == [b"16000"]
