"""The `asr` command: options and help. Each command imports its module when it runs, so that help answers at once."""
from __future__ import annotations

import sys
import warnings
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asr import __version__
from asr.errors import RillError

if TYPE_CHECKING:
    from asr.latency import Latency

app = typer.Typer(help="Live and offline speech recognition.", no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Format(str, Enum):
    txt = "txt"
    srt = "srt"
    vtt = "vtt"
    tsv = "tsv"
    json = "json"
    all = "all"


# Options that several commands have.
Checkpoint = Annotated[str | None, typer.Option(
    metavar="DIR", help="A checkpoint's folder, instead of the one that is shipped.")]
LatencyOption = Annotated[str | None, typer.Option(
    "--latency", metavar="NAME|C,R", help="fast, balanced, accurate or offline; or the chunk and the look-ahead in "
                                          "frames, such as 16,8. Higher is better and later.")]
NoLM = Annotated[bool, typer.Option("--no-lm", help="Greedy text from the characters alone: any word, more mistakes.")]
Hotwords = Annotated[list[str] | None, typer.Option(
    "--hotword", metavar="WORDS", help="A word or phrase to expect, \"rill\" or \"new york:12\" (more than the usual "
                                       "bonus of 8). May be given several times.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where the model runs; auto: on a GPU if there is one.")]
Int8 = Annotated[bool, typer.Option("--int8", help="8-bit weights: about half the work live, as accurate. CPU only.")]
Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="Utterances and their texts, JSON a line.")]
Split = Annotated[str, typer.Option(help="Which utterances of a manifest that has splits.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only so many utterances of each corpus.")]


def latency_of(text: str) -> Latency:
    """What `--latency` says, or RillError."""
    from asr.latency import Latency

    try:
        return Latency.parse(text)
    except ValueError as error:
        raise RillError(str(error)) from error


def show_version(asked: bool) -> None:
    if asked:
        print(f"asr {__version__}")
        raise typer.Exit


@app.callback()
def options(version: Annotated[bool, typer.Option("--version", help="Show the version and leave.", is_eager=True,
                                                  callback=show_version)] = False) -> None:
    """Options of `asr` itself."""


@app.command()
def transcribe(
        inputs: Annotated[list[str], typer.Argument(
            metavar="INPUT", help="Sound or video files, folders, patterns such as 'talks/*.mp3', or - for "
                                     "standard input.")],
        format: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.txt,
        output: Annotated[Path | None, typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for the transcripts, instead of standard output.")] = None,
        latency: LatencyOption = "offline",
        no_lm: NoLM = False,
        hotword: Hotwords = None,
        numerals: Annotated[bool, typer.Option("--numerals", help="Numbers and times in digits (English).")] = False,
        checkpoint: Checkpoint = None,
        device: DeviceOption = Device.auto,
        int8: Int8 = False,
        jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Files at the same time, each in "
                                                                                   "its own process.")] = 1) -> None:
    """Turn recordings into text, subtitles or JSON. A file that fails does not stop the others."""
    from asr.transcribing import Options, run

    chosen = Options(checkpoint, latency_of(latency or ""), tuple(hotword or ()), not no_lm, device.value, numerals,
                     int8)
    if run(inputs, chosen, format.value, output, jobs):
        raise typer.Exit(1)


@app.command()
def evaluate(
        manifest: Manifest,
        split: Split = "dev",
        latency: LatencyOption = None,
        streamed: Annotated[bool, typer.Option("--streamed", help="Through a live stream, without the second pass: "
                                                                  "what live text is worth.")] = False,
        no_lm: NoLM = False,
        hotword: Hotwords = None,
        checkpoint: Checkpoint = None,
        device: DeviceOption = Device.auto,
        int8: Int8 = False,
        limit: Limit = None,
        output: Annotated[Path | None, typer.Option(
            "--output", "-o", metavar="FILE", help="The figures as JSON.")] = None) -> None:
    """Word error rates, confidence and speed on utterances whose texts are known."""
    from asr.evaluate import run
    from asr.recognizer import load

    chosen = latency_of(latency or ("balanced" if streamed else "offline"))
    recognizer = load(checkpoint, hotwords=hotword or (), lm=not no_lm, device=device.value, int8=int8)
    run(recognizer, manifest, split, chosen, streamed, limit, output)


@app.command()
def tune(
        manifest: Manifest,
        split: Split = "dev",
        checkpoint: Checkpoint = None,
        device: DeviceOption = Device.auto,
        limit: Limit = None,
        output: Annotated[Path | None, typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for the new config.json, not the checkpoint's.")] = None,
) -> None:
    """Find a checkpoint's decoding settings and confidence weights on utterances that it was not trained on."""
    from asr.tune import run

    run(checkpoint, manifest, split, limit, output, device.value)


Microphone = Annotated[str | None, typer.Option(
    "--device", metavar="DEVICE", help="The microphone: its number, its name or a part of it.")]


@app.command()
def listen(
        device: Microphone = None,
        list_devices: Annotated[bool, typer.Option("--list-devices", help="Show what can record, and leave.")] = False,
        latency: LatencyOption = "balanced",
        no_lm: NoLM = False,
        hotword: Hotwords = None,
        checkpoint: Checkpoint = None,
        int8: Int8 = False,
        output: Annotated[Path | None, typer.Option(
            "--output", "-o", metavar="FILE", help="The finals, as .txt, .srt, .vtt, .tsv or .json.")] = None,
        save_audio: Annotated[Path | None, typer.Option(
            metavar="FILE", help="What is heard, as 16-bit mono WAV, as it comes.")] = None,
        json: Annotated[bool, typer.Option(
            "--json", help="An event a line on standard output, as when that is not a terminal.")] = False,
        input: Annotated[str | None, typer.Option(
            "--input", metavar="FILE|-", help="A recording, or - for standard input, as if spoken now.")] = None,
        speed: Annotated[float, typer.Option(
            min=0, help="Pace of --input: 1 is real time; 0 is as it comes, for a pipe that is live.")] = 1.0,
        rate: Annotated[float | None, typer.Option(
            min=1000, metavar="HZ", help="--input is raw 16-bit mono PCM at this rate.")] = None) -> None:
    """Show speech as text while it is spoken. Ctrl-C ends: the last words are written, files are complete.

    Captions of what the computer plays: --device monitor (PulseAudio, PipeWire); BlackHole or Stereo Mix elsewhere.
    """
    if list_devices:
        from asr.microphone import devices, table

        print(table(devices()))
        return
    from asr.listen import run

    run(device=device, file=input, speed=speed, rate=rate, latency=latency_of(latency or ""), hotwords=hotword or (),
        lm=not no_lm, checkpoint=checkpoint, save_audio=save_audio, output=output, as_json=json, int8=int8)


@app.command()
def doctor(device: Microphone = None, checkpoint: Checkpoint = None) -> None:
    """Versions, checkpoint, sound devices, and whether sound arrives: 3 seconds of the microphone's level."""
    from asr.doctor import run

    if not run(device, checkpoint):
        raise typer.Exit(1)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"asr: warning: {message}", file=sys.stderr, flush=True)


def main() -> None:
    """Errors that a user can act on become one line on stderr and status 1; Ctrl-C is status 130."""
    warnings.showwarning = show_warning
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except RillError as error:
        print(f"asr: {error}", file=sys.stderr)
    except OSError as error:
        print(f"asr: {error.filename or 'output'}: {error.strerror or error}.", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
