"""`asr lm`: language models from text, and the lexicon that goes with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from asr.cli.options import Checkpoint, Device, DeviceOption, Split
from asr.cli.output import markdown
from asr.errors import LanguageModelError, RillError

if TYPE_CHECKING:
    from asr.training.ngram import Fit


def lm(
    texts: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="TEXT…",
            help="What to learn from: UTF-8 text, plain or .gz, .bz2, .xz, no sentence longer than a "
            "line. Without it only the lexicon is made.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the model, vocabulary.txt and lexicon.txt; a checkpoint's, to use them with it.",
        ),
    ] = None,
    order: Annotated[int, typer.Option(min=2, max=6, help="Words of the longest n-gram.")] = 3,
    prune: Annotated[
        str,
        typer.Option(
            metavar="COUNTS", help="n-grams seen no more often than this are left out: a number for each order."
        ),
    ] = "0 0 1",
    vocab: Annotated[
        str,
        typer.Option(metavar="N|FILE", help="So many words, the most frequent, or those in a file (a lexicon, too)."),
    ] = "100000",
    without: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MANIFEST",
            help="Learn nothing from the sentences of a test set, and measure the model on them. "
            "May be given several times.",
        ),
    ] = None,
    split: Split = "dev",
    checkpoint: Checkpoint = None,
    train_pronunciation: Annotated[
        bool,
        typer.Option("--train-pronunciation", help="Train the letter-to-sound network on CMUdict first, into DIR."),
    ] = False,
    build_tools: Annotated[
        bool, typer.Option("--build-tools", help="Build KenLM's lmplz first, with CMake and Boost.")
    ] = False,
    neural: Annotated[
        bool, typer.Option("--neural", help="Train an LSTM language model instead, which rescores final text: hours.")
    ] = False,
    hidden: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=8192, help="Units of --neural's LSTM: 512 by default.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A neural_lm.safetensors that --neural goes on from, such as a checkpoint's, to learn how your texts "
            "are worded. It keeps its words.",
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            metavar="N", help="How often --neural goes through the text: 1 by default; 0.5 is half of the text."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --neural where it was stopped.")] = False,
    device: DeviceOption = Device.auto,
) -> None:
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
        make_neural(
            texts or [], output, vocab, without or [], split, checkpoint, hidden, init, epochs, resume, device.value
        )
    else:
        make_ngram(texts or [], output, order, prune, vocab, without or [], split, checkpoint)


def make_ngram(
    texts: list[Path],
    folder: Path,
    order: int,
    prune: str,
    vocabulary: str,
    without: list[Path],
    split: str,
    checkpoint: str | None,
) -> None:
    """Model and lexicon from texts; without texts only the lexicon, of a vocabulary that is there."""
    from asr.model.checkpoint import beside, read_config
    from asr.model.tokens import CHARACTERS, PHONEMES
    from asr.training.dictionary import Pronouncer
    from asr.training.ngram import build, read_tests, read_vocabulary, write_tree

    words = [] if vocabulary.isdecimal() else read_vocabulary(Path(vocabulary))
    if not texts and not words:
        raise LanguageModelError("Give texts to learn from, or --vocab FILE for the lexicon of the words in a file.")
    if not re.fullmatch(r"\d+( \d+)*", prune):
        raise LanguageModelError(f"--prune '{prune}' should be counts, one an order, such as \"0 0 1\".")
    source = beside(folder, checkpoint)
    config = read_config(source / "config.json")
    pronouncer = Pronouncer(folder, source)  # a missing package is reported before the long work
    if texts:
        language = config.language
        built = build(
            texts,
            folder,
            order=order,
            prune=[int(count) for count in prune.split()[:order]],
            vocabulary=words or int(vocabulary),
            tests=read_tests(without, split, language),
            language=language,
            say=print,
        )
        print(markdown(table(built.fits)))
        words = built.vocabulary
    print(pronouncer.write(words).report())
    write_tree(folder, config.tokens.get(PHONEMES, config.tokens[CHARACTERS]))
    if pronouncer.network and pronouncer.network.held_out:
        print(f"Letter-to-sound: {pronouncer.network.held_out}")


def make_neural(
    texts: list[Path],
    folder: Path,
    vocabulary: str,
    without: list[Path],
    split: str,
    checkpoint: str | None,
    hidden: int | None,
    init: Path | None,
    epochs: float | None,
    resume: bool,
    device: str,
) -> None:
    from asr.model.checkpoint import beside, read_config
    from asr.training.neural_lm import train_from_texts
    from asr.training.ngram import read_tests, read_vocabulary

    language = read_config(beside(folder, checkpoint) / "config.json").language
    words = int(vocabulary) if vocabulary.isdecimal() else read_vocabulary(Path(vocabulary))
    print(
        markdown(
            table(
                train_from_texts(
                    texts,
                    folder,
                    vocabulary=words,
                    tests=read_tests(without, split, language),
                    language=language,
                    hidden=hidden,
                    init=init,
                    epochs=epochs,
                    resume=resume,
                    device=device,
                    say=print,
                )
            )
        )
    )


def table(fits: Mapping[str, Fit]) -> Table:
    """How well a model predicts each text."""
    rows = Table("", "sentences", "words", "unknown %", "perplexity", box=box.MARKDOWN)
    for title, fit in fits.items():
        rows.add_row(
            title, str(fit.sentences), str(fit.words), f"{100 * fit.unknown_rate:.2f}", f"{fit.perplexity:.1f}"
        )
    return rows
