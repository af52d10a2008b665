"""Recordings in object stores, by address: `s3://bucket/talks/monday.mp3`, `gs://bucket/…`.

Apache Arrow's file systems do the talking. They look for credentials and settings where their vendors' own tools do:
AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ~/.aws/config or the machine's role; GOOGLE_APPLICATION_CREDENTIALS.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from glob import has_magic
from pathlib import PurePosixPath
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from asr.errors import AudioError, RillError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs")
FOLDERS = "**"  # in a pattern: any number of folders, none included
COPY_BYTES = 1 << 20  # at a time


def is_remote(name: str) -> bool:
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme in SCHEMES


def find(name: str, suffixes: Collection[str]) -> list[str]:
    """The files that an address stands for: those of these suffixes in a folder and below it, hidden ones left out;
    those that match a pattern; else itself, there or not. Raises RillError where the store does not answer."""
    from pyarrow.fs import FileType

    scheme, _, path = name.partition("://")
    folder, parts, found = path.rstrip("/"), path.split("/"), [path]
    try:
        kind = _store(name).get_file_info(folder).type
        if kind == FileType.Directory:
            found = [
                file for file in _files(name, folder, True) if _shown(PurePosixPath(file[len(folder) :]), suffixes)
            ]
        elif kind == FileType.NotFound and has_magic(path):
            fixed = next(i for i, part in enumerate(parts) if has_magic(part))
            deep = fixed < len(parts) - 1 or FOLDERS in parts
            found = [file for file in _files(name, "/".join(parts[:fixed]), deep) if _matches(file.split("/"), parts)]
    except OSError as error:
        raise RillError(
            f"{name}: the store cannot be asked ({_first_line(error)}); check the address and the credentials."
        ) from error
    return [f"{scheme}://{file}" for file in found]


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """The object's bytes as a file that can seek and bears its name: all of them, or AudioError. They wait on the disk,
    so that a line that breaks is not taken for a recording's end."""
    with TemporaryFile() as file:
        try:
            with _store(name).open_input_stream(name.partition("://")[2]) as stream:
                shutil.copyfileobj(stream, file, COPY_BYTES)
        except OSError as error:
            raise AudioError(
                f"{name}: cannot be read ({_first_line(error)}); check the address and who may read it."
            ) from error
        yield cast(BinaryIO, _Named(file, name))


class _Named:
    """A file under another name."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        self.read, self.seek, self.tell, self.seekable = file.read, file.seek, file.tell, file.seekable


def _store(name: str) -> FileSystem:
    return _connect("/".join(name.split("/")[:3]))


@cache
def _connect(bucket: str) -> FileSystem:
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(bucket)[0]  # of the bucket alone: behind it, signs such as % and # mean themselves


def _files(name: str, folder: str, deep: bool) -> list[str]:
    """Paths of the files of a folder, and of the folders below it."""
    from pyarrow.fs import FileSelector, FileType

    found = _store(name).get_file_info(FileSelector(folder, recursive=deep, allow_not_found=True))
    return sorted(info.path for info in found if info.type == FileType.File)


def _matches(path: list[str], pattern: list[str]) -> bool:
    """As `glob` does it, folder by folder."""
    if not pattern:
        return not path
    if pattern[0] == FOLDERS:
        return _matches(path, pattern[1:]) or (bool(path) and _matches(path[1:], pattern))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def _shown(inner: PurePosixPath, suffixes: Collection[str]) -> bool:
    return inner.suffix.lower() in suffixes and not any(part.startswith(".") for part in inner.parts)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
