"""`asr doctor`: what this computer has for listening, and whether sound arrives."""
from __future__ import annotations

import platform
import time
from importlib import metadata

import numpy as np
from rich.console import Console
from rich.markup import escape

import asr
from asr.audio.microphone import Microphone, devices, table
from asr.audio.reading import to_mono
from asr.cli.terminal import CLIPPED, decibels
from asr.errors import RillError
from asr.model import checkpoint
from asr.model.latency import PRESETS

PACKAGES = ("torch", "torchaudio", "numpy", "av", "soxr", "flashlight-text", "sounddevice", "gradio")
TEST = 3.0  # seconds of the level test
QUIET = -40.0  # dB of full scale; speech whose loudest sample is below this is too quiet


def run(device: str | None = None, checkpoint_name: str | None = None) -> bool:
    """Prints versions, checkpoint, devices and a level test; whether all is well. What is wrong is said, not raised."""
    console = Console(highlight=False)
    console.print(f"[bold]rill[/] {asr.__version__}, Python {platform.python_version()}, {platform.platform()}")
    console.print(", ".join(f"{name} {_version(name)}" for name in PACKAGES) + "\n")
    well = True
    for title, part in (("Checkpoint", lambda: _checkpoint(checkpoint_name)), ("Devices", _devices),
                        ("Level", lambda: _level(console, device))):
        console.print(f"[bold]{title}[/]")
        try:
            console.print(escape(part()) + "\n")
        except RillError as error:
            console.print(f"[red]{escape(str(error))}[/]\n")
            well = False
    return well


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _checkpoint(name: str | None) -> str:
    found = checkpoint.load(name, "cpu")
    size = sum(parameter.numel() for parameter in found.model.parameters())
    frame = found.seconds_per_frame
    latencies = ", ".join(f"{name} {setting.seconds(frame):.2f} s" for name, setting in PRESETS.items() if setting.live)
    return f"  {found.path}: {size / 1e6:.1f} million weights, a frame every {frame * 1000:g} ms; latency {latencies}"


def _devices() -> str:
    import sounddevice  # microphone.devices() says what to do where PortAudio is missing

    listed = table(devices())
    return f"  {sounddevice.get_portaudio_version()[1]}\n{listed}"


def _level(console: Console, device: str | None) -> str:
    with Microphone(device) as microphone:
        console.print(f"  say something: {TEST:g} seconds from {microphone.name} …")
        until = time.monotonic() + TEST
        heard = []
        for block in microphone:
            heard.append(to_mono(block))
            if time.monotonic() >= until:
                break
    sound = np.concatenate(heard)
    peak, mean = decibels(float(np.abs(sound).max())), decibels(float(np.sqrt(np.mean(sound**2))))
    if not np.any(sound):
        raise RillError("Nothing but digital silence arrived: unmute the microphone, or allow this program to use it.")
    verdict = ("too loud, it is clipped: turn the microphone down" if peak >= CLIPPED else
               "too quiet for speech: come closer, or turn the microphone up" if peak < QUIET else "good")
    lost = f", {microphone.overflows} overflows" if microphone.overflows else ""
    return f"  peak {peak:.0f} dB, mean {mean:.0f} dB of full scale{lost}: {verdict}"
