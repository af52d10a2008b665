"""`asr prepare`: recordings and their texts into the form that training reads."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from asr.cli.progress import AudioProgress
from asr.errors import RillError

if TYPE_CHECKING:
    from asr.training.prepare import PreparationReport


def prepare(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="index (a manifest, or a folder with index.jsonl), folder (recordings with .txt of "
            "the same name), table (CSV, TSV, JSONL), kaldi (a data folder), noise (recordings "
            "without speech), or a corpus: speechocean762, or one that Lhotse knows, such as "
            "librispeech.",
        ),
    ],
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="SRC… OUT", help="What to read, and the folder to write.")
    ] = None,
    language: Annotated[str, typer.Option(help="Of the texts: how numbers are spelled out.")] = "en",
    dev: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="The fraction of speakers kept for `dev`, where the source names no splits."),
    ] = 0.0,
    drop_digits: Annotated[
        bool,
        typer.Option(
            "--drop-digits",
            help="Drop texts with digits: the speaker may have said them in another way than they "
            "are spelled out (house numbers, years).",
        ),
    ] = False,
) -> None:
    """Bring recordings and their texts into the form that `asr train` reads, and report what was dropped and why."""
    from asr.training.prepare import prepare
    from asr.training.sources import readers

    if paths is None or len(paths) < 2:
        raise RillError("Give at least one source and the folder to write: asr prepare folder my-recordings data/mine.")
    *sources, out = paths
    read = readers(kind)
    with AudioProgress(None) as progress:
        report = prepare(
            (each for path in sources for each in read(path)),
            out,
            language=language,
            dev=dev,
            digits=not drop_digits,
            on_progress=progress.add,
        )
    Console().print(table(report))
    for corpus in sorted({corpus for _, corpus in report.utterances}):
        if both := report.speakers["train", corpus] & report.speakers["dev", corpus]:
            print(f"{corpus}: {min(both)} is heard in train and dev, so errors on dev will look too good.")
    print("characters:", *sorted(character for character in report.characters if character != " "))
    for reason, each in groupby(sorted(report.dropped), key=lambda drop: drop[0]):
        names = [name for _, name, _ in each]
        print(f"dropped {len(names)}: {reason} (such as {names[0]})")
    if report.dropped:
        print(f"every one of them: {out / 'dropped.tsv'}")


def table(report: PreparationReport) -> Table:
    """Hours, utterances and speakers of each corpus and split."""
    rows = Table("split", "corpus", "hours", "utterances", "speakers", box=box.SIMPLE)
    for column in rows.columns[2:]:
        column.justify = "right"
    for split, corpus in sorted(report.utterances):
        key = (split, corpus)
        rows.add_row(
            split,
            corpus,
            f"{report.seconds[key] / 3600:.2f}",
            str(report.utterances[key]),
            str(len(report.speakers[key]) or "–"),
        )
    return rows
