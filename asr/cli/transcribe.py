"""`asr transcribe`: recordings to transcripts, on this computer or on a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.options import (
    Checkpoint,
    Device,
    DeviceOption,
    Engine,
    EngineName,
    Hotwords,
    Int8,
    LatencyOption,
    NoLM,
    Numerals,
    Plain,
    parse_latency,
)
from asr.cli.output import complain, describe
from asr.cli.progress import AudioProgress
from asr.cli.sigterm import OrderlySigterm
from asr.errors import RillError

if TYPE_CHECKING:
    from asr.inference.archive import Answer
    from asr.inference.files import Options, Outcome
    from asr.text.results import Final, Transcript


class Format(str, Enum):
    txt = "txt"
    srt = "srt"
    vtt = "vtt"
    tsv = "tsv"
    json = "json"
    all = "all"


def transcribe(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Audio or video files, folders, patterns such as 'talks/*.mp3', also at s3://… or "
            "gs://…; or - for standard input.",
        ),
    ],
    format: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.txt,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for the transcripts, instead of standard output."),
    ] = None,
    latency: LatencyOption = "offline",
    no_lm: NoLM = False,
    hotword: Hotwords = None,
    plain: Plain = False,
    numerals: Numerals = False,
    checkpoint: Checkpoint = None,
    device: DeviceOption = Device.auto,
    engine: Engine = EngineName.auto,
    int8: Int8 = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            metavar="N",
            help="Files at the same time, each in its own process: 1, or with --ray as many as the cluster has cores.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="On a Ray cluster: auto, HOST:PORT, or local to start one here. "
            "Transcripts that --output has are kept; OUT/manifest.jsonl says what "
            "failed.",
        ),
    ] = None,
) -> None:
    """Turn recordings into text, subtitles or JSON. A file that fails does not stop the others."""
    from asr.inference.files import Options
    from asr.text.writers import FORMATS

    options = Options(
        checkpoint=checkpoint,
        latency=parse_latency(latency),
        hotwords=tuple(hotword or ()),
        lm=not no_lm,
        device=device.value,
        numerals=numerals,
        engine=engine.value,
        int8=int8,
        punctuate=not plain,
    )
    formats = FORMATS if format == Format.all else (format.value,)
    if ray:
        failed = transcribe_on_cluster(inputs, options, formats, output, ray, jobs)
    else:
        failed = transcribe_here(inputs, options, formats, output, jobs or 1)
    if failed:
        raise typer.Exit(1)


def transcribe_here(
    names: Sequence[str], options: Options, formats: tuple[str, ...], output: Path | None, jobs: int
) -> int:
    """How many of the inputs could not be transcribed. Raises RillError where nothing can be done."""
    from asr.audio.inputs import expand, output_names
    from asr.inference.files import spare_memory, total_seconds, transcribe_files
    from asr.text import writers

    spare_memory()
    sources, errors = expand(names)
    if output is None and (len(formats) > 1 or (len(sources) > 1 and formats != ("txt",))):
        raise RillError("Standard output takes one transcript, or several as txt: name a folder with --output.")
    if output:
        output.mkdir(parents=True, exist_ok=True)  # where that fails, it does so before all work
    for error in errors:
        complain(error)
    failed, finished = len(errors), 0
    at_once = output is None and formats == ("txt",) and len(sources) == 1
    places = output_names(sources)
    layout, end = writers.Layout("txt"), ""

    total = total_seconds(sources) if sys.stderr.isatty() else None
    with OrderlySigterm() as sigterm, AudioProgress(total) as progress:

        def on_progress(source: str, seconds: float, segments: Sequence[Final]) -> None:
            nonlocal end
            progress.add(Path(source).name or f"{finished} of {len(sources)} files", seconds)
            for segment in segments if at_once else ():
                text, end = layout.add(segment)
                print(text, end="", flush=True)

        outcomes = sigterm.until(transcribe_files(sources, options, jobs=jobs, on_progress=on_progress))
        for outcome in outcomes if output else in_order(outcomes, sources):
            finished += 1
            if outcome.transcript is None:
                failed += 1
                complain(outcome.error)
            elif output:
                failed += not write(outcome.transcript, output / places[outcome.source], formats)
            elif not at_once:
                text = writers.render(outcome.transcript, formats[0])
                print(f"==> {outcome.source} <==\n{text}\n" if len(sources) > 1 else text, end="", flush=True)
        print(end, end="", flush=True)
    return failed


def write(transcript: Transcript, place: Path, formats: Sequence[str]) -> bool:
    """Each format at `place` with its suffix; says which cannot be written, and returns whether all were."""
    from asr.text import writers

    written = True
    for suffix in formats:
        try:
            writers.write(transcript, place.with_name(f"{place.name}.{suffix}"))
        except OSError as error:
            complain(describe(error))
            written = False
    return written


def transcribe_on_cluster(
    names: Sequence[str],
    options: Options,
    formats: tuple[str, ...],
    output: Path | None,
    address: str,
    workers: int | None,
) -> int:
    """How many of the inputs could not be transcribed. Raises RillError where nothing can be done."""
    from asr.audio.inputs import STDIN, expand
    from asr.inference.archive import transcribe_archive

    if output is None:
        raise RillError("A cluster's transcripts go to a folder: name it with --output.")
    sources, errors = expand(names)
    if STDIN in sources:
        raise RillError("A cluster cannot read standard input: name files, or leave out --ray.")
    for error in errors:
        complain(error)
    with AudioProgress(None) as progress:

        def on_answer(answer: Answer, done: int, total: int) -> None:
            if answer.error:
                complain(answer.error)
            progress.add(f"{done} of {total} files", answer.seconds)

        failed = transcribe_archive(sources, options, formats, output, address, workers, on_answer)
    return len(errors) + failed


def in_order(outcomes: Iterator[Outcome], sources: Sequence[str]) -> Iterator[Outcome]:
    """The outcomes in the order of their sources; where they end too soon, those that there are."""
    early: dict[str, Outcome] = {}
    waiting = list(reversed(sources))
    for outcome in outcomes:
        early[outcome.source] = outcome
        while waiting and waiting[-1] in early:
            yield early.pop(waiting.pop())
    yield from (early[source] for source in reversed(waiting) if source in early)
