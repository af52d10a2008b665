"""What every command prints in the same way: complaints as one line, tables as Markdown."""

from __future__ import annotations

import errno
import sys

from rich.console import Console
from rich.table import Table

OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def complain(sentence: str) -> None:
    """One line on standard error."""
    print(f"asr: {sentence}", file=sys.stderr, flush=True)


def markdown(table: Table) -> str:
    """The table as Markdown, so that it can be pasted."""
    console = Console(width=200, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(map(str.rstrip, capture.get().strip().splitlines()))


def describe(error: OSError) -> str:
    """What failed, and why, in one line. An error of a write alone names no file: then it is the output that failed."""
    if error.errno in OUTPUT_ERRORS and error.filename is None:
        return f"output: {error.strerror}."
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    return f"{error.filename}: {error.strerror}{cause}." if error.filename else f"{error}{cause}".rstrip(".") + "."
