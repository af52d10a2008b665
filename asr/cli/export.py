"""`asr export`: a checkpoint as ONNX files."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from asr.cli.options import Int8


class Target(str, Enum):
    onnx = "onnx"


def export(
    checkpoint: Annotated[
        str | None, typer.Argument(metavar="CHECKPOINT", help="A checkpoint's folder, instead of the shipped one.")
    ] = None,
    to: Annotated[Target, typer.Option(help="The format.")] = Target.onnx,
    int8: Int8 = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The folder to write, instead of NAME-onnx.")
    ] = None,
) -> None:
    """Write a model for other programs and languages: live step and offline pass as ONNX files."""
    from asr.model import checkpoint as checkpoints
    from asr.model.export import write

    loaded = checkpoints.load(checkpoint)
    for file in write(loaded, output or Path(f"{loaded.config.name}-onnx"), int8):
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
