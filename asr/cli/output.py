"""What every command prints in the same way: complaints as one line, tables as Markdown."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table


def complain(sentence: str) -> None:
    """One line on standard error."""
    print(f"asr: {sentence}", file=sys.stderr, flush=True)


def markdown(table: Table) -> str:
    """The table as Markdown, so that it can be pasted."""
    console = Console(width=200, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(map(str.rstrip, capture.get().strip().splitlines()))
