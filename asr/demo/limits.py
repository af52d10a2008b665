"""What visitors may ask of the page, and the disk space that their files take."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asr.errors import AudioError

MAX_WAITING = 32  # requests of all visitors to transcribe or to draw something; more are refused
STORED_FACTOR = 10  # so many times as many bytes as one upload may have are stored


@dataclass(frozen=True)
class Limits:
    """Of one page; `asr serve` has those of its options."""

    files: int = 1  # recordings that are transcribed at the same time
    max_seconds: float = inf  # of a recording
    max_upload_bytes: int = 4 << 30
    open_upload: Callable[[], AbstractContextManager[None]] = nullcontext  # while one is transcribed; or RillError

    def check_length(self, seconds: float) -> None:
        """Raises AudioError."""
        if seconds > self.max_seconds:
            raise AudioError(f"The recording lasts longer than {self.max_seconds:g} s, the limit of this page.")


@cache
def upload_folder() -> Path:
    """This process's own folder for uploads and downloads, deleted at its end. Gradio reads the variable."""
    folder = Path(tempfile.mkdtemp(prefix="rill-demo-", dir=os.environ.get("GRADIO_TEMP_DIR")))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class StorageMiddleware:
    """Bounds the space of all uploads: before a request that may store something, the oldest files are deleted.

    Refuses a request that is larger than one upload may be, or whose length is not known before.
    """

    def __init__(self, app: ASGIApp, folder: Path, max_upload_bytes: int) -> None:
        self.app, self.folder, self.max_upload_bytes = app, folder, max_upload_bytes
        self.arriving = 0  # bytes of requests that are being received

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        size = int(length) if length.isascii() and length.isdigit() else None
        if size is None or size > self.max_upload_bytes:
            status = 411 if size is None else 413
            reason = f"A file may have {self.max_upload_bytes / 2**20:g} MiB at most, and its length must be known."
            await PlainTextResponse(reason, status)(scope, receive, send)
            return
        self.arriving += size
        try:
            room = STORED_FACTOR * self.max_upload_bytes - self.arriving
            await asyncio.to_thread(delete_oldest, self.folder, room)
            await self.app(scope, receive, send)
        finally:
            self.arriving -= size


def delete_oldest(folder: Path, max_bytes: int) -> None:
    """Delete files, the oldest first, until those that are left have at most `max_bytes` together."""
    files = []
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # another thread was faster
            continue
        if not path.is_dir():
            files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= max_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size
