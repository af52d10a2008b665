"""Finding and opening devices with a PortAudio made of paper; then a real sound server with a virtual microphone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jiwer
import numpy as np
import pytest
import soundfile

from asr.audio import microphone
from asr.audio.microphone import Device, Microphone, devices, find, table
from asr.errors import DeviceError

PATIENCE_S = 120
CLIP = Path(__file__).parents[1] / "clips" / "commonvoice-11.flac"


class PortAudioError(Exception):
    pass


class FakeStream:
    """Calls nothing back by itself: a test calls `callback`."""

    latency = 0.02
    refusal: PortAudioError | None = None

    def __init__(self, **settings):
        if self.refusal:
            raise self.refusal
        self.__dict__.update(settings)
        FakeStream.last = self

    def start(self):
        pass

    def close(self):
        self.finished_callback()

    def send(self, value=0.1, overflow=False):
        block = np.full((self.blocksize, self.channels), value, np.float32)
        self.callback(block, len(block), None, SimpleNamespace(input_overflow=overflow))


def entry(name, inputs=2, rate=48_000.0):
    return {"name": name, "max_input_channels": inputs, "default_samplerate": rate}


@pytest.fixture
def portaudio(monkeypatch):
    fake = SimpleNamespace(
        PortAudioError=PortAudioError,
        InputStream=FakeStream,
        default=SimpleNamespace(device=(2, 0)),
        query_devices=lambda: [
            entry("HDMI out", 0),
            entry("Webcam: USB Audio (hw:1,0)", 1, 16_000.0),
            entry("Headset: USB Audio (hw:2,0)"),
        ],
    )
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(FakeStream, "refusal", None)
    return fake


SOURCES = """Source #7
	State: IDLE
	Name: alsa_out.monitor
	Description: Monitor of Built-in Audio
	Sample Specification: s16le 2ch 44100Hz
	Properties:
		device.description = "Monitor of Built-in Audio"

Source #8
	State: IDLE
	Name: alsa_in.usb-3
	Description: Küche: links
	Sample Specification: s24le 1ch 16000Hz
	Ports:
		mic: Microphone (type: Mic, priority: 100, available)
			Name: not this one

Source #9
	Name: half of one
"""


def with_sound_server(portaudio, monkeypatch, sources=SOURCES):
    portaudio.query_devices = lambda: [entry("pulse", 32, 44_100.0)]
    portaudio.default.device = (0, 0)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: SimpleNamespace(stdout=sources))
    monkeypatch.setenv("PULSE_SOURCE", "")


def test_lists_what_can_record(portaudio):
    assert [(device.number, device.default) for device in devices()] == [(1, False), (2, True)]
    assert table(devices()).splitlines()[1].startswith("*   2  Headset")
    assert "1 channel, 16000 Hz" in table(devices())


@pytest.mark.parametrize(("wanted", "number"), [(None, 2), (1, 1), ("1", 1), ("webcam", 1), ("HEADSET: usb", 2)])
def test_finds_by_number_and_part_of_a_name(portaudio, wanted, number):
    assert find(wanted).number == number


@pytest.mark.parametrize(
    ("wanted", "says"), [("0", "matches '0'"), ("nothing", "--list-devices"), ("usb", "2 recording devices (1 Webcam")]
)
def test_says_which_device_is_not_there(portaudio, wanted, says):
    with pytest.raises(DeviceError) as caught:
        find(wanted)
    assert says in str(caught.value)


def test_no_device(portaudio):
    portaudio.query_devices = lambda: [entry("HDMI out", 0)]
    with pytest.raises(DeviceError, match="No microphone was found"):
        find()


def test_no_portaudio(monkeypatch):
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)

    class NoLibrary:
        def find_spec(self, name, *_):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.setattr(sys, "meta_path", [NoLibrary(), *sys.meta_path])
    with pytest.raises(DeviceError, match="apt install libportaudio2"):
        devices()


def test_opens_at_native_rate_and_channels(portaudio):
    with Microphone("webcam") as opened:
        stream = FakeStream.last
        assert (stream.device, stream.samplerate, stream.channels) == (1, 16_000, 1)
        stream.send()
        stream.send()
        blocks = iter(opened)
        assert next(blocks).shape == (800, 1)
        opened.close()
        assert len(list(blocks)) == 1  # what was recorded before the end is handed on


def test_a_monitor_is_chosen_through_the_sound_server(portaudio, monkeypatch):
    with_sound_server(portaudio, monkeypatch)
    with Microphone("monitor") as opened:
        assert os.environ["PULSE_SOURCE"] == "alsa_out.monitor"
        assert (FakeStream.last.device, opened.channels, opened.sample_rate) == (0, 2, 44_100)
    with Microphone("pulse"):
        assert FakeStream.last.channels == 1  # of "32": the server mixes


@pytest.mark.parametrize("wanted", ["KÜCHE: LINKS", "links", "usb-3"])
def test_a_source_is_found_as_the_desktop_shows_it(portaudio, monkeypatch, wanted):
    with_sound_server(portaudio, monkeypatch)
    assert find(wanted) == Device(None, "alsa_in.usb-3", 1, 16_000.0, description="Küche: links")
    assert find("monitor of built-in audio").name == "alsa_out.monitor"
    with Microphone(wanted) as opened:
        assert os.environ["PULSE_SOURCE"] == "alsa_in.usb-3" and opened.name == "Küche: links"
    with pytest.raises(DeviceError, match=r"2 recording devices \(Monitor of Built-in Audio, Küche: links\)"):
        find("i")
    assert len(devices()) == 3


def test_a_missing_pactl_is_no_error(portaudio, monkeypatch):
    with_sound_server(portaudio, monkeypatch)

    def missing(*args, **kwargs):
        raise FileNotFoundError("pactl")

    monkeypatch.setattr(subprocess, "run", missing)
    assert [device.name for device in devices()] == ["pulse"]


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        (("Error opening InputStream: Device unavailable", -9985), "busy: close the program"),
        (("Error opening InputStream: Unanticipated host error", -9999, (8, -13, "Permission denied")), "permission"),
        (("Error opening InputStream: Invalid sample rate", -9997), "Invalid sample rate: choose another device"),
    ],
)
def test_refusals_name_the_remedy(portaudio, monkeypatch, reason, remedy):
    monkeypatch.setattr(FakeStream, "refusal", PortAudioError(*reason))
    with pytest.raises(DeviceError) as caught:
        Microphone()
    assert "'Headset: USB Audio (hw:2,0)' cannot be opened" in str(caught.value)
    assert remedy in str(caught.value)


def test_the_callback_never_blocks_and_counts_what_is_lost(portaudio, monkeypatch):
    monkeypatch.setattr(microphone, "MAX_QUEUE_S", 1.0)
    with Microphone() as opened:
        for _ in range(30):  # nobody takes them; a callback that waited for somebody would do so for ever
            FakeStream.last.send()
        FakeStream.last.send(overflow=True)
        assert opened.overflows == 10 + 1 + 1  # too many, reported by PortAudio, and this one did not fit either
        opened.close()
        assert len(list(opened)) == 20


def test_a_device_that_falls_silent_is_lost(portaudio, monkeypatch):
    monkeypatch.setattr(microphone, "LOST_AFTER_S", 0.1)
    with Microphone() as opened:
        FakeStream.last.send()
        with pytest.raises(DeviceError, match="stopped sending audio"):
            assert len(list(opened)) == 1


def test_a_device_that_ends_is_lost_at_once(portaudio):
    with Microphone() as opened:
        threading.Timer(0.1, FakeStream.last.finished_callback).start()
        with pytest.raises(DeviceError, match="so far is kept"):
            list(opened)


def test_what_c_libraries_write_is_hidden_and_python_s_own_is_not(capfd):
    with microphone._quiet():
        os.write(2, b"ALSA lib\n")
        print("a note", file=sys.stderr)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "a note\nafter\n"


def test_table_shows_sources_by_name():
    source = Device(None, "alsa_out.monitor", 2, 48_000)
    shown = table([Device(0, "pulse", 32, 44_100), source, replace(source, description="Monitor of Speakers")])
    assert [line.strip() for line in shown.splitlines()[-2:]] == [
        "alsa_out.monitor  (2 channels, 48000 Hz)",
        "Monitor of Speakers  (alsa_out.monitor; 2 channels, 48000 Hz)",
    ]


# The rest needs a sound server; it starts one of its own, apart from any that the computer's user has.


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Environment of a PulseAudio server whose only sink, `vmic`, plays into the default microphone, `vmic.monitor`."""
    if not all(map(shutil.which, ("pulseaudio", "pactl", "paplay"))):
        pytest.skip("needs PulseAudio: apt install libportaudio2 libasound2-plugins pulseaudio pulseaudio-utils")
    folder = tmp_path_factory.mktemp("pulse")
    socket = folder / "socket"
    environment = os.environ | {
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_RUNTIME_PATH": str(folder),
        "PULSE_STATE_PATH": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [
            "pulseaudio",
            "-n",
            "--daemonize=no",
            "--exit-idle-time=-1",
            "--use-pid-file=no",
            "--disable-shm=yes",
            "-L",
            f"module-native-protocol-unix auth-anonymous=1 socket={socket}",
            "-L",
            "module-null-sink sink_name=vmic sink_properties='device.description=\"Küche links\"'",
            "-L",
            "module-null-sink sink_name=other",
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 10
    while subprocess.run(
        ["pactl", "set-default-source", "vmic.monitor"], env=environment, capture_output=True
    ).returncode:
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.skip("PulseAudio does not start here")
        time.sleep(0.1)
    yield SimpleNamespace(environment=environment, process=process)
    process.kill()
    process.wait()


def asr(*arguments, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "asr.cli", *map(str, arguments)],
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        **settings,
    )


def finals(lines):
    return " ".join(event["text"] for event in map(json.loads, lines) if event["type"] == "final")


def listen_while_playing(server, clip, saved, *options):
    """Plays the clip into the virtual microphone and ends with Ctrl-C → exit status, standard output's lines, notes."""
    process = asr("listen", "--json", "--save-audio", saved, *options, env=server.environment)
    note = process.stderr.readline()
    assert note.startswith("Listening"), note + process.stderr.read()
    subprocess.run(["paplay", "--device=vmic", clip], env=server.environment, check=True)
    heard = saved.stat().st_size
    while saved.stat().st_size < heard + 2 * 44_100 * 0.4:  # shorter than the pause that ends an utterance: Ctrl-C must
        assert process.poll() is None  # flush it; longer than the server's delay
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, notes = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out.splitlines(), note + notes


@pytest.mark.parametrize("device", [(), ("--device", "monitor of küche")])
def test_hears_what_is_played_into_a_real_microphone(server, tmp_path, device):
    sound, rate = soundfile.read(CLIP)
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, np.concatenate([np.zeros(rate // 2), sound]), rate)
    status, lines, notes = listen_while_playing(server, clip, tmp_path / "talk.wav", *device)
    assert status == 0, notes
    streamed, _ = asr("listen", "--json", "--input", clip, "--speed", "0").communicate(timeout=PATIENCE_S)
    wanted = finals(streamed.splitlines())
    assert len(wanted.split()) >= 5
    assert jiwer.wer(wanted, finals(lines)) <= 0.2, (wanted, finals(lines))
    assert any(json.loads(line)["type"] == "partial" for line in lines)
    saved, rate = soundfile.read(tmp_path / "talk.wav")
    assert rate == 44_100 and np.abs(saved).max() > 0.5 * np.abs(sound).max()


def test_another_monitor_hears_nothing_of_it(server, tmp_path):
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, soundfile.read(CLIP)[0][:16_000], 16_000)
    status, lines, _ = listen_while_playing(server, clip, tmp_path / "talk.wav", "--device", "other.monitor")
    assert (status, lines) == (0, [])


def test_doctor_names_devices_and_silence(server):
    process = asr("doctor", env=server.environment)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, err
    for part in ("torch 2", "PortAudio V19", "vmic.monitor", "balanced 0.9", "digital silence"):
        assert part in out


def test_a_lost_device_ends_with_a_sentence_and_keeps_what_was_heard(server, tmp_path):
    process = asr(
        "listen", "--output", tmp_path / "talk.txt", "--save-audio", tmp_path / "talk.wav", env=server.environment
    )
    assert process.stderr.readline().startswith("Listening")
    subprocess.run(["paplay", "--device=vmic", CLIP], env=server.environment, check=True)
    server.process.kill()  # the module's last test: its server is gone
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("asr: 'default' stopped sending audio: plug it in again")
    assert len(finals(out.splitlines()).split()) >= 5
    assert (tmp_path / "talk.txt").read_text().split() == finals(out.splitlines()).split()
    assert len(soundfile.read(tmp_path / "talk.wav")[0]) > 44_100
