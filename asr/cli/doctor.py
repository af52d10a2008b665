"""`asr doctor`: what this computer has for listening, and whether audio arrives."""

from __future__ import annotations

import platform
import time
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from asr import __version__
from asr.cli.options import Checkpoint, MicrophoneOption
from asr.errors import RillError

PACKAGES = ("numpy", "onnxruntime", "numba", "av", "soxr", "sounddevice", "gradio")
OPTIONAL_PACKAGES = ("torch", "torchaudio", "lhotse")  # the extra "train"
LEVEL_TEST_S = 3.0
QUIET_DB = -40.0  # of full scale; speech whose loudest sample is below this is too quiet


def doctor(
    device: MicrophoneOption = None,
    checkpoint: Checkpoint = None,
    renew: Annotated[
        bool,
        typer.Option(
            "--renew",
            help="Write size and SHA-256 of the checkpoint's files, as they are now, into its config.json, and end.",
        ),
    ] = False,
) -> None:
    """Versions, the checkpoint and its files, audio devices, and whether audio arrives: 3 seconds of the microphone."""
    if renew:
        print(_renewed(checkpoint))
        return
    console = Console(highlight=False)
    console.print(f"[bold]rill[/] {__version__}, Python {platform.python_version()}, {platform.platform()}")
    optional = [name for name in OPTIONAL_PACKAGES if find_spec(name)]
    console.print(", ".join(f"{name} {_version(name)}" for name in (*PACKAGES, *optional)) + "\n")
    well = True
    for title, part in (
        ("Checkpoint", lambda: _checkpoint(checkpoint)),
        ("Devices", _devices),
        ("Level", lambda: _level(console, device)),
    ):
        console.print(f"[bold]{title}[/]")
        try:
            console.print(escape(part()) + "\n")
        except RillError as error:
            console.print(f"[red]{escape(str(error))}[/]\n")
            well = False
    if not well:
        raise typer.Exit(1)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _renewed(name: str | None) -> str:
    from asr.model import checkpoint

    folder = checkpoint.find(name)
    checkpoint.read_config(folder / "config.json")  # says what is wrong with one that cannot be read
    checkpoint.record(folder)
    return f"{folder / 'config.json'} lists the files of the checkpoint as they are now."


def _checkpoint(name: str | None) -> str:
    from asr.model import checkpoint
    from asr.model.integrity import FILES, damage
    from asr.model.latency import PRESETS

    folder = checkpoint.find(name)
    listed = checkpoint.read_config(folder / "config.json").files
    if problems := [each for file in listed if (each := damage(folder, file, listed[file], mapped=True))]:
        raise RillError("\n".join(problems))
    unlisted = [file for file in FILES if file not in listed and (folder / file).is_file()]
    found = checkpoint.load(name)
    frame, millions = found.seconds_per_frame, found.size / 1e6
    latencies = ", ".join(f"{name} {setting.seconds(frame):.2f} s" for name, setting in PRESETS.items() if setting.live)
    files = f"  {len(listed)} files are as config.json lists them"
    if unlisted:
        unseen = ", ".join(unlisted) if listed else "any file, as one of an earlier version"
        files = (
            f"  its config.json does not list {unseen}; damage may stay unseen: "
            f"`asr doctor --renew --checkpoint {found.path}` adds what is there now"
        )
    return (
        f"  {found.path}: {millions:.1f} million weights, a frame every {frame * 1000:g} ms; latency {latencies}\n"
        f"{files}"
    )


def _devices() -> str:
    from asr.audio.microphone import devices, table

    listed = table(devices())  # says what to do where PortAudio is missing, which importing sounddevice does not
    import sounddevice

    return f"  {sounddevice.get_portaudio_version()[1]}\n{listed}"


def _level(console: Console, device: str | None) -> str:
    import numpy as np

    from asr.audio.microphone import Microphone
    from asr.audio.reading import to_mono
    from asr.cli.terminal import CLIPPED_DB, decibels

    with Microphone(device) as microphone:
        console.print(f"  say something: {LEVEL_TEST_S:g} seconds from {microphone.name} …")
        until = time.monotonic() + LEVEL_TEST_S
        heard = []
        for block in microphone:
            heard.append(to_mono(block))
            if time.monotonic() >= until:
                break
    audio = np.concatenate(heard)
    peak, mean = decibels(float(np.abs(audio).max())), decibels(float(np.sqrt(np.mean(audio**2))))
    if not np.any(audio):
        raise RillError("Nothing but digital silence arrived: unmute the microphone, or allow this program to use it.")
    verdict = (
        "too loud, it is clipped: turn the microphone down"
        if peak >= CLIPPED_DB
        else "too quiet for speech: come closer, or turn the microphone up"
        if peak < QUIET_DB
        else "good"
    )
    lost = f", {microphone.overflows} overflows" if microphone.overflows else ""
    return f"  peak {peak:.0f} dB, mean {mean:.0f} dB of full scale{lost}: {verdict}"
