"""Checkpoints that a user installs, from a folder or an archive; `checkpoint.find` then knows them by name.

What comes in a folder or an archive is not trusted: files that a checkpoint does not have stay out, links too, and an
archive cannot unpack to more than a checkpoint may have.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import IO, cast

from asr.errors import CheckpointError
from asr.model.checkpoint import DEFAULT, Checkpoint, find, installed_folder, load
from asr.model.integrity import FILES

ARCHIVES = (".zip", ".tar.gz", ".tgz")
MAX_BYTES = 8 << 30  # of a checkpoint
FREE_BYTES = 1 << 20  # that any archive may become,
MAX_RATIO = 50  # and beyond it so many times its own size; text packs to a fifth, weights to nine tenths
MAX_ENTRIES = 10_000  # of an archive, most of which are none of a checkpoint's files
BLOCK_BYTES = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _checked_name(source: str, name: str | None) -> str:
    """The name that a checkpoint gets: `name`, or that of its folder or archive. Raises CheckpointError."""
    base = Path(source).resolve().name
    chosen = name or next((base[: -len(end)] for end in ARCHIVES if base.lower().endswith(end)), base)
    if not NAME.fullmatch(chosen):
        raise CheckpointError(
            f"'{chosen:.80}' cannot be a checkpoint's name: take letters, digits, '.', '_' and '-', with --name."
        )
    return chosen


def install(source: str, name: str | None = None) -> Checkpoint:
    """Copy the checkpoint of a folder or an archive to where installed ones are, as `name` or by its own one.

    Raises CheckpointError where it cannot be used or there is one of this name, and OSError where it cannot be written.
    """
    name = _checked_name(source, name)
    target = installed_folder() / name
    if target.exists() or name == DEFAULT:
        raise CheckpointError(f"There is a checkpoint '{name}' already: choose another --name.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as new:
        place = Path(new) / name
        place.mkdir()
        _copy(source, place)
        load(place)
        place.rename(target)
    return load(target)


def installed() -> list[Path]:
    """The folders of all checkpoints that can be named: the shipped one, then what was installed, by name."""
    return [find(), *sorted(path.parent for path in installed_folder().glob("*/config.json"))]


def _copy(source: str, place: Path) -> None:
    if not os.path.exists(source):
        raise CheckpointError(f"There is no '{source}': give a checkpoint's folder or archive.")
    try:
        if os.path.isdir(source):
            _copy_folder(Path(source), place)
        elif source.lower().endswith(".zip"):
            _copy_zip(source, place)
        elif source.lower().endswith(ARCHIVES):
            _copy_tar(source, place)
        else:
            raise CheckpointError(f"'{source}' is neither a folder nor an archive ({', '.join(ARCHIVES)}).")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"'{source}' is damaged or encrypted ({error}): copy it again.") from error


def _copy_folder(source: Path, place: Path) -> None:
    budget = Budget(str(source), MAX_BYTES)
    for path in sorted(source.iterdir()):
        if path.name in FILES and path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                budget.copy(file, place / path.name)


def _copy_zip(source: str, place: Path) -> None:
    budget = Budget.of_archive(source)
    with zipfile.ZipFile(source) as archive:
        entries = {each.filename: each for each in archive.infolist() if not each.is_dir() and not _is_link(each)}
        for path in _of_one_folder(source, entries):
            with archive.open(entries[path]) as file:
                budget.copy(file, place / PurePosixPath(path).name)


def _is_link(entry: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(entry.external_attr >> 16)


def _copy_tar(source: str, place: Path) -> None:
    budget = Budget.of_archive(source)
    with gzip.open(source) as packed, tarfile.open(fileobj=cast(IO[bytes], Bounded(packed, budget))) as archive:
        entries = {}
        for entry in archive:
            if entry.isreg():
                entries[entry.name] = entry
            if len(entries) > MAX_ENTRIES:
                break
        for path in _of_one_folder(source, entries):
            file = archive.extractfile(entries[path])
            assert file is not None  # of a regular file
            budget.copy(file, place / PurePosixPath(path).name)


def _of_one_folder(source: str, entries: Collection[str]) -> list[str]:
    """The paths of a checkpoint's files beside the only config.json. Raises CheckpointError."""
    if len(entries) > MAX_ENTRIES:
        raise CheckpointError(f"'{source}' holds more than {MAX_ENTRIES} files: pack the checkpoint's folder alone.")
    folders = {PurePosixPath(path).parent for path in entries if PurePosixPath(path).name == "config.json"}
    if len(folders) != 1:
        raise CheckpointError(f"'{source}' holds {len(folders)} checkpoints (config.json), not 1: pack one folder.")
    return [path for path in entries if PurePosixPath(path).parent in folders and PurePosixPath(path).name in FILES]


class Budget:
    """How many bytes a source may become."""

    def __init__(self, source: str, most: int) -> None:
        self.source, self.most, self.copied = source, most, 0

    @classmethod
    def of_archive(cls, source: str) -> Budget:
        return cls(source, min(MAX_BYTES, FREE_BYTES + MAX_RATIO * os.path.getsize(source)))

    def copy(self, file: IO[bytes], path: Path) -> None:
        """Raises CheckpointError where it is spent."""
        with path.open("xb") as out:
            while block := file.read(BLOCK_BYTES):
                self.copied += len(block)
                self.check(self.copied)
                out.write(block)

    def check(self, size: int) -> None:
        if size > self.most:
            raise CheckpointError(
                f"'{self.source}' unpacks to more than {self.most / 2**20:.3g} MiB: it is no checkpoint of Rill."
            )


class Bounded:
    """A file that is unpacked as far as the budget allows, whatever its reader asks for."""

    def __init__(self, file: gzip.GzipFile, budget: Budget) -> None:
        self.file, self.budget, self.tell = file, budget, file.tell

    def read(self, size: int) -> bytes:
        self.budget.check(self.tell() + size)
        return self.file.read(size)

    def seek(self, position: int) -> int:
        self.budget.check(position)
        return self.file.seek(position)
