"""The commands that make models: prepare, train, tune and lm."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli.options import Checkpoint, Device, DeviceOption, Engine, EngineName, Limit, Manifest, Split
from asr.errors import RillError


def prepare(
        kind: Annotated[str, typer.Argument(
            metavar="KIND", help="index (a manifest, or a folder with index.jsonl), folder (recordings with .txt of "
                                 "the same name), table (CSV, TSV, JSONL), kaldi (a data folder), noise (recordings "
                                 "without speech), or a corpus: speechocean762, or one that Lhotse knows, such as "
                                 "librispeech.")],
        paths: Annotated[list[Path] | None, typer.Argument(
            metavar="SRC… OUT", help="What to read, and the folder to write.")] = None,
        language: Annotated[str, typer.Option(help="Of the texts: how numbers are spelled out.")] = "en",
        dev: Annotated[float, typer.Option(
            min=0, max=0.9, help="The fraction of speakers kept for `dev`, where the source names no splits.")] = 0.0,
        drop_digits: Annotated[bool, typer.Option(
            "--drop-digits", help="Drop texts with digits, which may have been said otherwise than they are spelled "
                                  "out: house numbers, years.")] = False) -> None:
    """Bring recordings and their texts into the form that `asr train` reads, and report what was dropped and why."""
    from asr.training.prepare import run
    from asr.training.sources import readers

    if paths is None or len(paths) < 2:
        raise RillError("Give at least one source and the folder to write: asr prepare folder my-recordings data/mine.")
    read = readers(kind)
    run((source for path in paths[:-1] for source in read(path)), paths[-1], language, dev, not drop_digits)


def train(
        recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="What to train, on what, and how.")],
        changes: Annotated[list[str] | None, typer.Argument(
            metavar="KEY=VALUE…", help="Changes to the recipe, such as train.updates=500.")] = None,
        output: Annotated[Path | None, typer.Option(
            "--output", "-o", metavar="DIR", help="The run's folder, instead of runs/NAME.")] = None,
        init: Annotated[Path | None, typer.Option(
            metavar="DIR", help="A checkpoint to start from (fine-tuning).")] = None,
        resume: Annotated[bool, typer.Option("--resume", help="Go on where this run stopped or was killed.")] = False,
        minutes: Annotated[float | None, typer.Option(
            min=0.1, help="Choose the number of updates so that they take about so long.")] = None,
        device: DeviceOption = Device.auto,
        threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each process.")] = None) -> None:
    """Train a model, or fine-tune one. On several GPUs or machines: torchrun … -m asr.cli train RECIPE.toml"""
    from asr.training.recipe import read
    from asr.training.trainer import run

    run(read(recipe, changes or ()), output, init=init, resume=resume, minutes=minutes, device=device.value,
        threads=threads)


def tune(
        manifest: Manifest,
        split: Split = "dev",
        checkpoint: Checkpoint = None,
        device: DeviceOption = Device.auto,
        engine: Engine = EngineName.auto,
        limit: Limit = None,
        output: Annotated[Path | None, typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for the new config.json, not the checkpoint's.")] = None,
) -> None:
    """Find a checkpoint's decoding settings and confidence weights on utterances that it was not trained on."""
    from asr.evaluation.tune import run

    run(checkpoint, manifest, split, limit, output, device.value, engine.value)


def lm(
        texts: Annotated[list[Path] | None, typer.Argument(
            metavar="TEXT…", help="What to learn from: UTF-8 text, plain or .gz, .bz2, .xz, no sentence longer than a "
                                  "line. Without it only the lexicon is made.")] = None,
        output: Annotated[Path | None, typer.Option(
            "--out", "--output", "-o", metavar="DIR", help="Folder for lm.bin, vocabulary.txt and lexicon.txt; a "
                                                           "checkpoint's, to use them with it.")] = None,
        order: Annotated[int, typer.Option(min=2, max=6, help="Words of the longest n-gram.")] = 3,
        prune: Annotated[str, typer.Option(
            metavar="COUNTS", help="n-grams seen no more often than this are left out: a number for each order.")]
        = "0 0 1",
        vocab: Annotated[str, typer.Option(
            metavar="N|FILE", help="So many words, the most frequent, or those in a file (a lexicon, too).")]
        = "100000",
        without: Annotated[list[Path] | None, typer.Option(
            metavar="MANIFEST", help="Learn nothing from the sentences of a test set, and measure the model on them. "
                                     "May be given several times.")] = None,
        split: Split = "dev",
        checkpoint: Checkpoint = None,
        train_pronunciation: Annotated[bool, typer.Option(
            "--train-pronunciation", help="Train the letter-to-sound network on CMUdict first, into DIR.")] = False,
        build_tools: Annotated[bool, typer.Option(
            "--build-tools", help="Build KenLM's lmplz and build_binary first, with CMake and Boost.")] = False,
        neural: Annotated[bool, typer.Option(
            "--neural", help="Train an LSTM language model instead, which rescores final text: hours.")] = False,
        epochs: Annotated[float | None, typer.Option(
            metavar="N", help="How often --neural goes through the text, 1 if not said; 0.5: through half of it.")]
        = None,
        resume: Annotated[bool, typer.Option("--resume", help="Go on with --neural where it was stopped.")] = False,
        device: DeviceOption = Device.auto) -> None:
    """Make a language model from text, and the lexicon that goes with it."""
    if build_tools:
        from asr.training.kenlm_tools import build

        build(print)
        if not (texts or output):
            return
    if not output:
        raise RillError("Give the folder to write: asr lm TEXT --out DIR.")
    if train_pronunciation:
        from asr.training.dictionary import train_network

        train_network(output, print)
        if not texts and vocab.isdecimal():
            return
    if neural:
        from asr.training.neural_lm import run as run_neural

        run_neural(texts or [], output, vocab, without or [], split, checkpoint, epochs, resume, device.value)
        return
    from asr.training.ngram import run

    run(texts or [], output, order, prune, vocab, without or [], split, checkpoint)


COMMANDS = (prepare, train, tune, lm)
