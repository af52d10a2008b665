"""`asr transcribe`: recordings to transcripts, on this computer or on a Ray cluster."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
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
from asr.cli.output import complain, describe, file_format, is_folder, note, summary, visible
from asr.cli.progress import AudioProgress
from asr.cli.signals import OrderlySigterm
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
    format: Annotated[
        Format | None, typer.Option("--format", "-f", help="What to write: txt, unless --output has another suffix.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR/",
            help="The transcript's file, such as talk.srt; or a folder, which is there or ends in /. Else standard "
            "output.",
        ),
    ] = None,
    latency: LatencyOption = "offline",
    no_lm: NoLM = False,
    hotword: Hotwords = None,
    plain: Plain = False,
    numerals: Numerals = False,
    alternatives: Annotated[
        int,
        typer.Option(
            "--alternatives",
            min=0,
            metavar="N",
            help="At most N sentences that may have been said, of each segment, in JSON.",
        ),
    ] = 0,
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
    from asr.audio.inputs import expand

    places, errors = expand(inputs)
    for error in errors:
        complain(error)
    if not places:  # said at once, before all that takes time to load
        raise typer.Exit(1)
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
        alternatives=alternatives,
    )
    file = output is not None and not (ray or is_folder(output))
    if output is not None and file:
        suffix = Format(file_format(output))
        if format not in (None, suffix):
            raise RillError(f"--output {output} and --format {format.value} contradict each other: leave one out.")
        format = suffix
    formats = FORMATS if format == Format.all else ((format or Format.txt).value,)
    if alternatives and "json" not in formats:
        raise RillError("Only JSON has alternatives: add --format json.")
    place = None if output is None else Path(output)
    if ray:
        failed = transcribe_on_cluster(places, len(errors), options, formats, place, ray, jobs)
    else:
        failed = transcribe_here(
            places, len(errors), options, formats, place, jobs or 1, file, list(places) == inputs[:1]
        )
    if failed:
        raise typer.Exit(1)


def transcribe_here(
    places: Mapping[str, Path],
    failed: int,
    options: Options,
    formats: tuple[str, ...],
    output: Path | None,
    jobs: int,
    file: bool,
    alone: bool,
) -> int:
    """How many of the inputs could not be transcribed, with those that had `failed` before. `places` are recordings and
    where their transcripts go; `output` is a `file` of one transcript, else a folder. JSON of a recording that is
    not named `alone` is a line. Raises RillError where nothing can be done."""
    from asr.audio.inputs import check_places
    from asr.inference.files import spare_memory, total_seconds, transcribe_files
    from asr.text import writers

    spare_memory()
    begin = time.monotonic()
    sources, total = list(places), len(places) + failed
    if file and len(sources) > 1:
        raise RillError(f"{output} takes one transcript, and there are {len(sources)} recordings: name a folder.")
    if output is None and (len(formats) > 1 or (len(sources) > 1 and formats[0] not in ("txt", "json"))):
        raise RillError("Standard output takes one transcript, or several as txt or json: name a folder with --output.")
    if output and not file:
        check_places(places)
    if output:  # where that fails, it does so before all work
        (output.parent if file else output).mkdir(parents=True, exist_ok=True)
    finished = 0
    at_once = output is None and formats == ("txt",) and len(sources) == 1
    layout, end = writers.Layout("txt"), ""

    seconds = total_seconds(sources) if sys.stderr.isatty() else None
    with OrderlySigterm() as sigterm, AudioProgress(seconds) as progress:

        def on_progress(source: str, seconds: float, segments: Sequence[Final]) -> None:
            nonlocal end
            progress.add(visible(Path(source).name) or f"{finished} of {len(sources)} files", seconds)
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
                place = output / places[outcome.source]
                paths = [output] if file else [place.with_name(f"{place.name}.{suffix}") for suffix in formats]
                failed += not write(outcome.transcript, paths)
            elif formats == ("json",) and not alone:
                line = {"source": outcome.source, **outcome.transcript.to_dict()}
                print(json.dumps(line, ensure_ascii=False), flush=True)
            elif not at_once:
                text = writers.render(outcome.transcript, formats[0])
                shown = f"==> {visible(outcome.source)} <==\n{text}\n" if len(sources) > 1 else text
                print(shown, end="", flush=True)
        print(end, end="", flush=True)
    note(summary(total - failed, failed, progress.seconds, time.monotonic() - begin, output))
    return failed


def write(transcript: Transcript, paths: Sequence[Path]) -> bool:
    """Each file in the format of its suffix; says which cannot be written, and returns whether all were."""
    from asr.text import writers

    written = True
    for path in paths:
        try:
            writers.write(transcript, path)
        except OSError as error:
            complain(describe(error))
            written = False
    return written


def transcribe_on_cluster(
    places: Mapping[str, Path],
    failed: int,
    options: Options,
    formats: tuple[str, ...],
    output: Path | None,
    address: str,
    workers: int | None,
) -> int:
    """As `transcribe_here`, on a Ray cluster."""
    from asr.audio.inputs import STDIN
    from asr.inference.archive import transcribe_archive

    if output is None:
        raise RillError("A cluster's transcripts go to a folder: name it with --output.")
    begin = time.monotonic()
    if STDIN in places:
        raise RillError("A cluster cannot read standard input: name files, or leave out --ray.")
    with AudioProgress(None) as progress:

        def on_answer(answer: Answer, done: int, total: int) -> None:
            if answer.error:
                complain(answer.error)
            progress.add(f"{done} of {total} files", answer.seconds)

        total = len(places) + failed
        failed += transcribe_archive(places, options, formats, output, address, workers, on_answer)
    # What an earlier run has done counts as done; the audio is that of this run.
    note(summary(total - failed, failed, progress.seconds, time.monotonic() - begin, output))
    return failed


def in_order(outcomes: Iterator[Outcome], sources: Sequence[str]) -> Iterator[Outcome]:
    """The outcomes in the order of their sources; where they end too soon, those that there are."""
    early: dict[str, Outcome] = {}
    waiting = list(reversed(sources))
    for outcome in outcomes:
        early[outcome.source] = outcome
        while waiting and waiting[-1] in early:
            yield early.pop(waiting.pop())
    yield from (early[source] for source in reversed(waiting) if source in early)
