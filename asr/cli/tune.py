"""`asr tune`: decoding settings and confidence weights into a checkpoint's config.json."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from asr.cli.options import Checkpoint, Device, DeviceOption, Engine, EngineName, Limit, Manifest, Split
from asr.cli.output import markdown

if TYPE_CHECKING:
    from asr.evaluation.tune import Tuning


def tune(
    manifest: Manifest,
    split: Split = "dev",
    checkpoint: Checkpoint = None,
    device: DeviceOption = Device.auto,
    engine: Engine = EngineName.auto,
    limit: Limit = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for the new config.json, not the checkpoint's."),
    ] = None,
) -> None:
    """Find a checkpoint's decoding settings and confidence weights on utterances that it was not trained on."""
    from asr.audio.manifest import of_split
    from asr.decoding.ngram import FILE
    from asr.evaluation.tune import tune
    from asr.inference.recognizer import load
    from asr.model.checkpoint import find, write_config

    lm = (find(checkpoint) / FILE).is_file()
    recognizer = load(checkpoint, lm=lm, device=device.value, engine=engine.value)
    notes = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    found = tune(recognizer, of_split(manifest, split), limit, notes.print)
    print(markdown(table(found)))
    folder = output or recognizer.engine.checkpoint.path
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder / "config.json", replace(recognizer.engine.checkpoint.config, decoding=found.decoding))
    print(f"Written to {folder / 'config.json'}.")


def table(tuning: Tuning) -> Table:
    """Old and new settings, error rates and confidences."""
    rows = Table("", "old", "new", box=box.MARKDOWN)
    for name, values in tuning.settings.items():
        rows.add_row(name, *(f"{value:g}" for value in values))
    for corpus, rates in tuning.error_rates.items():
        rows.add_row(f"WER % {corpus}", *(f"{100 * rate:.2f}" for rate in rates))
    for name, fit in tuning.calibrations.items():
        for figure, old, new in zip(("AUROC", "NCE"), fit.old, fit.new, strict=True):
            rows.add_row(f"{figure}, {name}", f"{old:.3f}", f"{new:.3f} (cross-validated)")
    return rows
