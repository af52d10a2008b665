"""`asr listen` as a program: what it prints, and what it leaves behind however it ends."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from asr.cli import listening
from asr.cli.listen import placed
from asr.cli.listening import Watch
from asr.errors import RillError
from asr.inference.endpoint import EndpointRules
from asr.inference.live import Stats
from asr.model.latency import PRESETS, Latency

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
CLIP = ROOT / "tests" / "clips" / "commonvoice-3.flac"


def start(*arguments, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "asr.cli", "listen", *map(str, arguments)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings,
    )


@pytest.fixture
def two_clips(tmp_path):
    """A clip, a pause, and the clip again: the first is final while the second is spoken."""
    sound, rate = soundfile.read(CLIP)
    soundfile.write(tmp_path / "two.wav", np.concatenate([sound, np.zeros(2 * rate), sound]), rate)
    return tmp_path / "two.wav"


@pytest.mark.e2e
def test_a_replay_as_json_lines(two_clips, tmp_path):
    process = start(
        "--input", two_clips, "--speed", 0, "--output", tmp_path / "a.json", "--save-audio", tmp_path / "a.wav"
    )
    out, notes = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, notes
    events = [json.loads(line) for line in out.splitlines()]
    assert all({"type", "text", "start", "words", "lag"} <= set(event) for event in events)
    finals = [event for event in events if event["type"] == "final"]
    assert len(finals) == 2 and finals[0]["end"] < finals[1]["start"]
    assert any(event["type"] == "partial" for event in events[: events.index(finals[0])])
    saved = json.loads((tmp_path / "a.json").read_text())
    assert [segment["text"] for segment in saved["segments"]] == [final["text"] for final in finals]
    source, _ = soundfile.read(two_clips)
    heard, _ = soundfile.read(tmp_path / "a.wav")
    assert np.abs(source - heard).max() < 1e-3
    assert notes.startswith("Listening") and "Total latency 1.19 s" in notes and "Wrote" in notes


@pytest.mark.e2e
def test_kill_leaves_valid_files(two_clips, tmp_path):
    process = start("--input", two_clips, "--output", tmp_path / "a.srt", "--save-audio", tmp_path / "a.wav")
    for line in process.stdout:
        if json.loads(line)["type"] == "final":
            break
    process.kill()
    process.communicate()
    sound, rate = soundfile.read(tmp_path / "a.wav")
    assert 3 < len(sound) / rate < 7.9
    number, times, text = (tmp_path / "a.srt").read_text().strip().split("\n")
    assert (number, " --> " in times, text) == ("1", True, json.loads(line)["text"])


@pytest.mark.e2e
def test_a_signal_makes_the_last_words_final(tmp_path):
    """Even while standard input is silent: the reader is stuck in it."""
    process = start("--input", "-", "--rate", 16_000, "--output", tmp_path / "a.txt", stdin=subprocess.PIPE)
    sound, _ = soundfile.read(CLIP, dtype="int16")
    process.stdin.buffer.write(sound.tobytes())
    process.stdin.buffer.flush()
    for line in process.stdout:
        if len(json.loads(line)["words"]) >= 4:
            break
    process.send_signal(signal.SIGTERM)
    while line := process.stdout.readline():
        last = json.loads(line)
    assert process.wait(PATIENCE_S) == 0
    assert last["type"] == "final" and len(last["words"]) >= 3
    assert (tmp_path / "a.txt").read_text().strip() == last["text"]


@pytest.mark.e2e
def test_a_reader_that_leaves_is_no_error(two_clips):
    process = start("--input", two_clips, "--speed", 0)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 0
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--input", "nowhere.wav"), "nowhere.wav: cannot be opened"),
        (("--input", "nowhere.raw", "--rate", 8_000), "nowhere.raw: cannot be opened"),
        (("--input", CLIP, "--output", "a.doc"), "txt, srt, vtt"),
        (("--input", CLIP, "--latency", "offline"), "choose fast"),
        (("--input", CLIP, "--save-audio", "/proc/nowhere/a.wav"), "/proc/nowhere/a.wav cannot be written"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(recognizer, asr, monkeypatch, options, says):
    monkeypatch.setattr("asr.inference.recognizer.load", lambda *_, **__: recognizer)
    status, out, notes = asr("listen", "--speed", 0, "--json", *options)
    assert (status, out) == (1, "") and says in notes.splitlines()[-1] and "Traceback" not in notes


def test_a_full_disk_is_a_sentence():
    with pytest.raises(RillError, match=r"a\.wav cannot be written, no space left"), listening.naming(Path("a.wav")):
        raise OSError(28, "No space left on device")


def test_warnings_are_rare(monkeypatch):
    said = []
    watch = Watch(SimpleNamespace(refresh=lambda *_: None, warn=said.append))
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def look(overflows=0, **changes):
        stats = {"heard": 1.0, "lag": 3.0, "dropped": 0.0, "level": 0.1, "latency": Latency(8, 4), "behind": False}
        watch.update(SimpleNamespace(stats=Stats(**stats | changes)), overflows)

    look()
    assert said == []
    for _ in range(5):
        look(behind=True)
    assert len(said) == 1 and "3.0 s behind" in said[0]
    now += listening.WARNING_INTERVAL_S
    look(behind=True)
    assert len(said) == 2
    look(overflows=2)
    look(overflows=3)
    assert "lost audio 2 times" in said[2] and len(said) == 3
    look(heard=9.0, level=0.0)
    look(heard=99.0, level=0.0)
    assert "digital silence" in said[3] and len(said) == 4


def test_total_latency_is_the_sum_of_its_parts():
    engine = SimpleNamespace(seconds_per_frame=0.04, frontend=SimpleNamespace(seconds_per_frame=0.01))
    recognizer = SimpleNamespace(latency=PRESETS["fast"], rules=EndpointRules(), engine=engine)
    source = SimpleNamespace(name="x", sample_rate=48_000, latency=0.1)
    assert "0.76 s (model 0.50 + step 0.16 + sound 0.10)" in listening.opening(recognizer, source)


def test_a_folder_gets_a_file_named_by_the_source_or_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "2026-11-30 05.17.00")
    assert (
        placed(f"{tmp_path}/new/", None) == placed(f"{tmp_path}/new/", "-") == tmp_path / "new/2026-11-30 05.17.00.txt"
    )
    assert placed(str(tmp_path), "x/talk.mp4") == tmp_path / "talk.txt"
    assert placed("x.VTT", "talk.mp4") == Path("x.VTT")
    with pytest.raises(RillError, match=r"x\.doc is neither a folder nor a file of a format .*txt, srt, vtt"):
        placed("x.doc", None)
