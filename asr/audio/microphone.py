"""The microphone: finding a device, opening it as it is, and handing on its audio without ever holding it up.

    with Microphone("USB") as microphone:        # a number, part of a name, or None for the default device
        for block in microphone:                 # float32, (n, channels), at microphone.sample_rate
            ...

PortAudio (through sounddevice) calls back on its own thread; the callback only copies the block into a bounded queue.
What the computer plays is heard through a "monitor" source of PulseAudio or PipeWire. PortAudio shows these servers as
one device, `pulse`, so their sources are listed by `pactl` and chosen through PULSE_SOURCE, libpulse's own setting.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from asr.errors import DeviceError

BLOCK_S = 0.05  # of audio that a callback delivers
MAX_QUEUE_S = 30.0  # of audio that may wait in the queue; more is dropped
LOST_AFTER_S = 3.0  # without a callback, after which a device counts as lost
MAX_CHANNELS = 8  # a device with more is a sound server that offers any number: it is asked to mix them itself
SOUND_SERVER = "pulse"  # PortAudio's name of PulseAudio, or of PipeWire standing in for it
LISTING_HINT = "`asr listen --list-devices` shows what there is"


@dataclass(frozen=True, slots=True)
class Device:
    """A device that can record. `number` is PortAudio's; None for a source of the sound server, which the desktop's
    settings show by its description."""

    number: int | None
    name: str
    channels: int
    sample_rate: float  # Hz, its native one
    default: bool = False
    description: str = ""

    @property
    def title(self) -> str:
        """What people know it by."""
        return self.description or self.name


def devices() -> list[Device]:
    """What can record: PortAudio's devices, then the sources of a sound server. DeviceError without PortAudio."""
    sounddevice = _sounddevice()
    default = sounddevice.default.device[0]
    found = [
        Device(number, entry["name"], entry["max_input_channels"], entry["default_samplerate"], number == default)
        for number, entry in enumerate(sounddevice.query_devices())
        if entry["max_input_channels"] > 0
    ]
    return found + _sources() if any(device.name == SOUND_SERVER for device in found) else found


def find(wanted: str | int | None = None) -> Device:
    """A device by its number, or by its name, its description or a part of them (case does not matter); None is the
    default device.

    Raises DeviceError where there is none, or more than one.
    """
    found = devices()
    if not found:
        raise DeviceError(
            "No microphone was found: plug one in, allow this program to use it (on Linux: group "
            "'audio', or a sound server with the package libasound2-plugins), or use --input FILE."
        )
    if wanted is None:
        matching = [device for device in found if device.default] or found[:1]
    elif str(wanted).isdigit():
        matching = [device for device in found if device.number == int(wanted)]
    else:
        part = str(wanted).casefold()
        names = [(device, [device.name.casefold(), device.description.casefold()]) for device in found]
        matching = [device for device, both in names if part in both]
        matching = matching or [device for device, both in names if any(part in name for name in both)]
    if not matching:
        raise DeviceError(f"No recording device matches '{wanted}': {LISTING_HINT}.")
    if len(matching) > 1:
        titles = ", ".join(f"{'' if d.number is None else d.number} {d.title}".strip() for d in matching)
        raise DeviceError(
            f"'{wanted}' matches {len(matching)} recording devices ({titles}): write more of the name, or a number."
        )
    return matching[0]


def table(found: list[Device]) -> str:
    """Devices as lines: number, name, channels and rate, `*` before the default; then what the sound server has."""
    lines = [
        f"{'*' if device.default else ' '} {device.number:>3}  {device.name}  ({_form(device)})"
        for device in found
        if device.number is not None
    ]
    sources = [
        f"       {device.title}  ({f'{device.name}; ' * bool(device.description)}{_form(device)})"
        for device in found
        if device.number is None
    ]
    if sources:
        lines += ["  Sources of the sound server (a monitor is what the computer plays):", *sources]
    return "\n".join(lines) or "  none"


def _form(device: Device) -> str:
    return f"{device.channels} channel{'s' * (device.channels > 1)}, {device.sample_rate:g} Hz"


class Microphone:
    """An open device: iterate over its blocks, until `close`.

    `overflows` counts blocks that were lost before or in the queue. Raises DeviceError when it cannot be opened, and,
    while iterating, when it is lost.
    """

    def __init__(self, wanted: str | int | None = None) -> None:
        sounddevice = _sounddevice()
        self.device = find(wanted)
        self.name, self.sample_rate = self.device.title, self.device.sample_rate
        self.channels = self.device.channels if self.device.channels <= MAX_CHANNELS else 1
        self.overflows = 0
        self.patient = False  # it cannot be held up
        self._queue: SimpleQueue[np.ndarray | None] = SimpleQueue()
        self._most = round(MAX_QUEUE_S / BLOCK_S)
        self._closed = False
        number = self.device.number
        if number is None:
            os.environ["PULSE_SOURCE"] = self.device.name
            number = next(device.number for device in devices() if device.name == SOUND_SERVER)
        with ExitStack() as stack:
            stack.enter_context(_quiet())
            try:
                self._stream = sounddevice.InputStream(
                    device=number,
                    samplerate=self.sample_rate,
                    channels=self.channels,
                    dtype="float32",
                    blocksize=round(BLOCK_S * self.sample_rate),
                    callback=self._callback,
                    finished_callback=lambda: self._queue.put(None),
                )
                stack.callback(self._stream.close)
                self._stream.start()
            except sounddevice.PortAudioError as error:
                raise _refusal(self.name, error) from error
            self._open = stack.pop_all()
        self.latency = BLOCK_S + float(self._stream.latency)  # seconds until a sample is handed on, as estimated

    def _callback(self, block: np.ndarray, frames: int, time: Any, status: Any) -> None:
        self.overflows += bool(status.input_overflow)
        if self._queue.qsize() < self._most:
            self._queue.put(block.copy())  # a SimpleQueue's put never blocks
        else:
            self.overflows += 1

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            try:
                block = self._queue.get(timeout=LOST_AFTER_S)
            except Empty:
                block = None
            if block is not None:
                yield block
            elif self._closed:
                return
            else:
                raise DeviceError(
                    f"'{self.name}' stopped sending audio: plug it in again and start anew; what was "
                    f"heard so far is kept."
                )

    def close(self) -> None:
        """Ends the iteration after what was recorded; may be called again, and from another thread."""
        if not self._closed:
            self._closed = True
            self._open.close()
            self._queue.put(None)

    def __enter__(self) -> Microphone:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refusal(name: str, error: Exception) -> DeviceError:
    """Why a device would not open. `error.args` are PortAudio's text, its code, and the host's own reason."""
    reason = " ".join(str(part) for part in error.args)
    lowered = reason.casefold()
    if "permission" in lowered or "access" in lowered:
        remedy = "permission was refused: allow this program to use the microphone (on Linux: join group 'audio')"
    elif "unavailable" in lowered or "busy" in lowered:
        remedy = "it is busy: close the program that uses it, or choose another device"
    else:
        remedy = f"{error.args[0] if error.args else error}: choose another device; {LISTING_HINT}"
    return DeviceError(f"'{name}' cannot be opened, {remedy}.")


def _sounddevice() -> Any:
    try:
        with _quiet():
            import sounddevice
    except OSError as error:
        raise DeviceError(
            "PortAudio, which reaches microphones, is not installed: `apt install libportaudio2` "
            "(Fedora: `dnf install portaudio`), or use --input FILE."
        ) from error
    return sounddevice


def _sources() -> list[Device]:
    """The sources of PulseAudio or PipeWire; none where there is no `pactl` or no server."""
    try:
        listed = subprocess.run(
            ["pactl", "list", "sources"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"LC_ALL": "C"},  # keys in English
            timeout=3,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for block in listed.split("\nSource #"):
        lines = (line.strip().partition(": ") for line in block.splitlines())
        facts = {
            key: value for key, separator, value in reversed(list(lines)) if separator
        }  # the first of a key counts
        name, form = facts.get("Name"), facts.get("Sample Specification", "").split()  # such as s16le 2ch 44100Hz
        if name and len(form) == 3:
            channels, rate = int(form[1].removesuffix("ch")), float(form[2].removesuffix("Hz"))
            found.append(Device(None, name, channels, rate, description=facts.get("Description", "")))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """ALSA and PortAudio write pages straight to file 2, about devices that are not there or have left; Python's
    `sys.stderr` goes on working."""
    with open(os.dup(2), "w", buffering=1) as kept, open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
        try:
            with redirect_stderr(kept):
                yield
        finally:
            os.dup2(kept.fileno(), 2)
