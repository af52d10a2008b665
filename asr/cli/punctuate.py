"""`asr punctuate`: plain words to sentences, and the training of the tagger that writes them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.options import Checkpoint, Device, DeviceOption
from asr.errors import RillError

if TYPE_CHECKING:
    from asr.training.punctuation import Progress

STDIN = "-"
UPDATES = 8000


def punctuate(
    texts: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE…",
            help="Plain words, a paragraph a line, UTF-8; - for standard input. With --train: what to "
            "learn from, also .gz, .bz2, .xz: a paragraph a line as it is written, an empty line "
            "between documents.",
        ),
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="Train a tagger on the texts instead, into --out.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            "-o",
            metavar="DIR",
            help="With --train: the folder for punctuation.safetensors; a checkpoint's, to use it with it.",
        ),
    ] = None,
    language: Annotated[str, typer.Option(help="With --train: of the texts, such as en or de.")] = "en",
    updates: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="With --train: so many batches of 4096 words, 8000 if not said; with --resume "
            "also another number than before.",
        ),
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --train: units of each LSTM, 128 if not said.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --train: begin with the tagger of this checkpoint, which may be narrower, not with nothing.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --train where it was stopped.")] = False,
    device: DeviceOption = Device.auto,
    checkpoint: Checkpoint = None,
) -> None:
    """Plain words as sentences, with punctuation and capitals."""
    if train:
        if not output:
            raise RillError("Give the folder to write: asr punctuate --train TEXT --out DIR.")
        train_tagger(texts or [], output, language, updates, hidden, init, resume, device.value)
        return
    if not texts:
        raise RillError("Give a file of plain words, or - for standard input: asr punctuate FILE.")
    from asr.inference.punctuation import load_punctuator

    punctuator = load_punctuator(checkpoint)
    for path in texts:
        lines = sys.stdin if str(path) == STDIN else path.open(encoding="utf-8")
        with lines:
            for line in lines:
                print(punctuator.punctuate(line), flush=True)


def train_tagger(
    texts: Sequence[Path],
    output: Path,
    language: str,
    updates: int | None,
    hidden: int | None,
    init: Path | None,
    resume: bool,
    device: str,
) -> None:
    from asr.training import punctuation

    if resume:
        training = punctuation.TaggerTraining.restore(output, device)
        training.updates = updates or training.updates
    elif not texts:
        raise RillError("Give texts to learn from: asr punctuate --train TEXT --out DIR.")
    else:
        training = punctuation.begin(
            texts,
            output,
            language,
            updates or UPDATES,
            device,
            lambda name, words: print(f"{name}: {words} words", flush=True),
            hidden or punctuation.HIDDEN,
            init,
        )
    punctuation.train(training, output, show)
    print(f"{output / punctuation.FILE} is ready; {output / 'held_out'} has text that it has not learned from.")


def show(progress: Progress) -> None:
    print(
        f"{progress.update}/{progress.updates}: loss of marks {progress.marks_loss:.4f}, "
        f"of cases {progress.cases_loss:.4f}; {progress.words_per_second:.0f} words/s",
        flush=True,
    )
