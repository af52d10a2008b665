"""`asr train`: a recipe to a checkpoint, with a progress bar and TensorBoard curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli.options import Device, DeviceOption
from asr.errors import TrainingError


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="What to train, on what, and how.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE…", help="Changes to the recipe, such as train.updates=500.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The run's folder, instead of runs/NAME.")
    ] = None,
    init: Annotated[Path | None, typer.Option(metavar="DIR", help="A checkpoint to start from (fine-tuning).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where this run stopped or was killed.")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Choose the number of updates so that they take about so long.")
    ] = None,
    device: DeviceOption = Device.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each process.")] = None,
) -> None:
    """Train a model, or fine-tune one. On several GPUs or machines: torchrun … -m asr.cli train RECIPE.toml"""
    from asr.cli.training_display import TrainingDisplay
    from asr.training.recipe import read
    from asr.training.state import STATE
    from asr.training.tensorboard import TensorBoard
    from asr.training.trainer import process, train

    chosen = read(recipe, changes or ())
    folder = output or Path("runs") / chosen.name
    if not resume and (folder / STATE).exists():
        raise TrainingError(f"{folder} holds a run already: go on with --resume, or give another folder with --output.")
    with process(device.value, threads) as place:
        train(
            chosen,
            folder,
            init=init,
            resume=resume,
            minutes=minutes,
            device=place,
            observers=[TensorBoard(), TrainingDisplay()],
        )
