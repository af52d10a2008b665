"""What every command prints and where it writes, in the same way: complaints and the last line as one line, tables as
Markdown, `--output` as a file or a folder.

Any text can be printed: what the terminal's encoding lacks becomes \\uXXXX, which JSON reads back. Names of files may
hold control characters, which would reach the terminal; they become \\uXXXX, too.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from asr.errors import RillError

CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of Unicode that a terminal obeys, or cannot show
OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def accept_any_text() -> None:
    """Printing never fails for want of a character."""
    codecs.register_error("escape", _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="escape")


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)), error.end


def visible(text: str) -> str:
    """One line that a terminal shows and does not obey."""
    return "".join(f"\\u{ord(each):04x}" if unicodedata.category(each) in CONTROLS else each for each in text)


def complain(sentence: str) -> None:
    """One line on standard error."""
    note(f"asr: {sentence}")


def note(line: str) -> None:
    """What is no complaint, on standard error."""
    print(visible(line), file=sys.stderr, flush=True)


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


def is_folder(output: str) -> bool:
    """Whether `--output` names a folder: one that is there, or any name that ends in `/`."""
    return output.endswith(("/", os.sep)) or os.path.isdir(output)


def file_format(output: str) -> str:
    """The transcript format that a file's suffix says. Raises RillError where it says none."""
    from asr.text.writers import FORMATS

    suffix = Path(output).suffix[1:].lower()
    if suffix not in FORMATS:
        raise RillError(
            f"--output {output} is neither a folder nor a file of a format that Rill writes ({', '.join(FORMATS)}): "
            f"write {output}/ for a new folder, or {output}.txt."
        )
    return suffix


def summary(done: int, failed: int, seconds: float, took: float, where: object = None) -> str:
    """The last line of work on recordings: how many, how much audio, how long it took, and where the text is."""
    count = f"{done} of {done + failed}" if failed else f"{done}"
    minutes, rest = divmod(round(seconds), 60)
    placed = f", written to {where}" if where else ""
    return (
        f"Transcribed {count} file{'s' * (done + failed != 1)}, {minutes // 60}:{minutes % 60:02}:{rest:02} of audio, "
        f"in {took:.1f} s{placed}."
    )
