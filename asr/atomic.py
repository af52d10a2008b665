"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, which is made where it is missing; what is written there replaces `path`.

    A reader, a crash or a power cut finds the old file or the new one, never half of one. An error leaves the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of bounded length, because the name itself may be as long as file systems allow.
    part = path.with_name(f".{crc32(os.fsencode(path.name)):08x}.{os.getpid()}.part")
    try:
        yield part
        with open(part, "r+b") as file:
            os.fsync(file.fileno())  # on disk before its name is: a power cut must not leave an empty file
        os.replace(part, path)
    except OSError as error:
        # A full disk is found while writing, where no name is known.
        if error.errno is not None and error.filename in (str(part), None):
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)
