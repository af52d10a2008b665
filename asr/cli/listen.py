"""`asr listen`: text while it is spoken, from a microphone or a replayed file."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.captions import Captions
from asr.cli.keyboard import keyboard
from asr.cli.options import (
    Checkpoint,
    Engine,
    EngineName,
    Hotwords,
    Int8,
    LatencyOption,
    MicrophoneOption,
    NoLM,
    Numerals,
    Plain,
    parse_latency,
)
from asr.cli.output import file_format, is_folder, note

if TYPE_CHECKING:
    from asr.cli.listening import Listener


def listen(
    device: MicrophoneOption = None,
    list_devices: Annotated[bool, typer.Option("--list-devices", help="Show what can record, and exit.")] = False,
    latency: LatencyOption = "balanced",
    no_lm: NoLM = False,
    hotword: Hotwords = None,
    plain: Plain = False,
    numerals: Numerals = False,
    checkpoint: Checkpoint = None,
    engine: Engine = EngineName.auto,
    int8: Int8 = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR/",
            help="The finals, as .txt, .srt, .vtt, .tsv or .json; in a folder as .txt, named by the time.",
        ),
    ] = None,
    save_audio: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The audio as 16-bit mono WAV, as it comes.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="An event a line on standard output, as when that is not a terminal.")
    ] = False,
    type_text: Annotated[
        bool,
        typer.Option("--type", help="Type the finals into the program in front, as a keyboard would."),
    ] = False,
    captions: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="Serve a transparent page with the newest text there, for OBS and other programs on this computer.",
        ),
    ] = None,
    input: Annotated[
        str | None,
        typer.Option("--input", metavar="FILE|-", help="A recording, or - for standard input, as if spoken now."),
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0, help="Pace of --input: 1 is real time; 0 is as it comes, for a pipe that is live.")
    ] = 1.0,
    rate: Annotated[
        float | None, typer.Option(min=1000, metavar="HZ", help="--input is raw 16-bit mono PCM at this rate.")
    ] = None,
) -> None:
    """Show speech as text while it is spoken. Ctrl-C ends: the last words are written, files are complete.

    Captions of what the computer plays: --device monitor (PulseAudio, PipeWire); BlackHole or Stereo Mix elsewhere.
    """
    from asr.audio.microphone import Microphone, devices, find, table

    if list_devices:
        print(table(devices()))
        return
    chosen = parse_latency(latency, live=True)
    place = None if output is None else placed(output, input)
    if input is None:
        find(device)  # says what is wrong before the checkpoint is loaded, which takes seconds
    with ExitStack() as stack:
        listeners: list[Listener] = []
        if type_text:
            listeners.append(stack.enter_context(closing(keyboard())))
        if captions is not None:
            page = stack.enter_context(closing(Captions(captions)))
            listeners.append(page)
            note(f"Captions for a browser source: {page.url}")
        from asr.audio.replay import Replay
        from asr.cli import listening
        from asr.cli.terminal import JsonLines, Screen
        from asr.inference.recognizer import load
        from asr.model.hardware import set_threads

        set_threads(1)  # a chunk is too small to share; a second thread would only wait for the first
        recognizer = load(
            checkpoint,
            latency=chosen,
            hotwords=hotword or (),
            lm=not no_lm,
            device="cpu",
            engine=engine.value,
            int8=int8,
            threads=1,
            punctuate=not plain,
        )
        source: listening.AudioSource = Microphone(device) if input is None else Replay(input, speed, rate)
        stack.enter_context(source)
        display = stack.enter_context(closing(JsonLines() if json or not sys.stdout.isatty() else Screen()))
        with suppress(BrokenPipeError):  # the reader of the events has left
            listening.listen(
                recognizer,
                source,
                display,
                save_audio=save_audio,
                output=place,
                listeners=listeners,
                digits=numerals,
            )


def placed(output: str, source: str | None) -> Path:
    """The file that `--output` means: itself, or one in that folder that bears the recording's name or the time."""
    if not is_folder(output):
        file_format(output)
        return Path(output)
    name = Path(source).stem if source not in (None, "-") else time.strftime("%Y-%m-%d %H.%M.%S")
    return Path(output) / f"{name}.txt"
