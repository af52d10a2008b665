"""MP4 and QuickTime files through a pipe, with their index at the end.

Such a file is a row of boxes. `mdat` holds audio and video; `moov`, the index, says where in it everything is. Cameras
and many programs write the index last, since they know it then. Who cannot seek must keep all before it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asr.errors import AudioError

BEFORE_AUDIO = (b"ftyp", b"styp", b"free", b"skip", b"wide", b"uuid", b"pnot")  # boxes that may come first
MAX_HEAD_BYTES = 1 << 20  # of them; more is no such file, or a strange one


class Rejoined:
    """A pipe whose first bytes were read already."""

    def __init__(self, head: bytes, file: Any) -> None:
        self.head, self.rest = head, getattr(file, "read1", file.read)

    def read(self, size: int) -> bytes:
        data, self.head = self.head[:size], self.head[size:]
        return data + (self.rest(size - len(data)) or b"" if len(data) < size else b"")


@contextmanager
def with_index_in_reach(file: Any) -> Iterator[Any]:
    """The same bytes as a file in which the index can be found: a temporary one where it comes last in a pipe, so that
    everything must arrive first. Raises AudioError where there is no room for that."""
    if getattr(file, "seekable", lambda: False)():
        yield file
        return
    head, audio_first = _walk(file)
    if not audio_first:
        yield Rejoined(head, file)
        return
    with tempfile.TemporaryFile(prefix="rill-") as kept:
        try:
            kept.write(head)
            shutil.copyfileobj(file, kept)
            kept.flush()
        except OSError as error:
            reason = str(error.strerror).lower()
            raise AudioError(
                f"has its index at the end and cannot be kept until then, {reason}; pass it as a file."
            ) from error
        yield kept


def _walk(file: Any) -> tuple[bytes, bool]:
    """What was read of a pipe, and whether it is such a file whose audio comes before its index."""
    head = b""
    while len(head) <= MAX_HEAD_BYTES:
        box = _read(file, 8)
        head += box
        size, kind = int.from_bytes(box[:4], "big"), box[4:]
        if kind == b"mdat":
            return head, True
        if kind not in BEFORE_AUDIO or not 8 <= size <= MAX_HEAD_BYTES:
            break
        head += _read(file, size - 8)
    return head, False


def _read(file: Any, size: int) -> bytes:
    """So many bytes, fewer only at the end: a pipe may give less than one asks for."""
    data = b""
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data
