"""`asr models`: the checkpoints that `--checkpoint` knows by name, and how one more gets there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from asr.errors import RillError

models = typer.Typer(help="Show the checkpoints that are installed, or install one.", invoke_without_command=True)


@models.callback()
def listing(context: typer.Context) -> None:
    """Show the checkpoints that are installed: name, size, license, path, card."""
    if context.invoked_subcommand:
        return
    from asr.model.installed import installed

    broken = False
    for folder in installed():
        try:
            _print(description(folder))
        except RillError as error:
            broken = True
            _print(f"[red]{escape(str(error))}[/]")
    if broken:
        raise typer.Exit(1)


@models.command()
def add(
    source: Annotated[
        str, typer.Argument(metavar="FOLDER|FILE", help="A checkpoint's folder, or one packed as .zip or .tar.gz.")
    ],
    name: Annotated[
        str | None, typer.Option(help="What --checkpoint calls it, instead of the folder's or archive's name.")
    ] = None,
) -> None:
    """Install a checkpoint: its files are checked, and copied to the user's data folder."""
    from asr.model.installed import install

    _print(description(install(source, name).path))


def description(folder: Path) -> str:
    """A checkpoint in lines; the shipped one's name has a star. Raises CheckpointError."""
    from asr.model.checkpoint import DEFAULT, read_config
    from asr.model.integrity import CARD

    config = read_config(folder / "config.json")
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    star = "*" if folder.name == DEFAULT else " "
    card = f"card {folder / CARD}" if (folder / CARD).is_file() else "no card"
    return (
        f"{star} [bold]{escape(folder.name)}[/]  {escape(config.language)}, {size / 1e6:.0f} MB, "
        f"{escape(config.licence)}\n    {escape(str(folder))}\n    {escape(card)}"
    )


def _print(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text)
