"""What a user names on the command line, as recordings; and where each one's transcript goes."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from zlib import crc32

from asr.audio import remote
from asr.errors import RillError

STDIN = "-"
MAX_STEM_BYTES = 255 - len(".json")  # of a transcript's name, as file systems allow 255
# What a folder is searched for; a file that is named itself may have any suffix.
SUFFIXES = {
    ".3gp",
    ".aac",
    ".ac3",
    ".aif",
    ".aiff",
    ".amr",
    ".au",
    ".avi",
    ".caf",
    ".flac",
    ".flv",
    ".m2ts",
    ".m4a",
    ".m4b",
    ".m4v",
    ".mka",
    ".mkv",
    ".mov",
    ".mp2",
    ".mp3",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".oga",
    ".ogg",
    ".ogv",
    ".opus",
    ".wav",
    ".wave",
    ".weba",
    ".webm",
    ".wma",
    ".wmv",
}


def expand(names: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Files, folders (with all below them), patterns (`*`, `?`, `[…]`, `**`) and `-` → paths, each once, and a sentence
    for every name that gave none. All of it may also be in an object store: see `remote`.

    Each path comes with the place of its transcript inside an output folder, without the format's suffix: `talk` for a
    file that is named; below a folder, or the fixed part of a pattern, its folders too: `monday/talk`. What else is
    named changes nothing.

    Raises RillError where standard input is not the only source, or a store does not answer.
    """
    if STDIN in names and len(names) > 1:
        raise RillError("'-' (standard input) stands alone: transcribe the other files by themselves.")
    paths: dict[str, tuple[str, Path]] = {}  # absolute path → as named, and its place
    errors = []
    for name in names:
        found = remote.find(name, SUFFIXES) if remote.is_remote(name) else list(_recordings(name))
        if not found:
            what = (
                "holds no audio or video files"
                if os.path.isdir(name)
                else "matches no file"
                if glob.has_magic(name) or remote.is_remote(name)
                else "no such file"
            )
            errors.append(f"{name}: {what}; check the path.")
        for path in found:
            paths.setdefault(absolute(path), (path, _place(path, name)))
    return dict(paths.values()), errors


def check_places(places: Mapping[str, Path]) -> None:
    """Raises RillError where two recordings would have the same transcript; in capitals or not is the same."""
    owners: dict[str, str] = {}
    for path, place in places.items():
        other = owners.setdefault(str(place).casefold(), path)
        if other != path:
            raise RillError(
                f"{other} and {path} would both become {place.as_posix()}: choose one, as with a pattern such as "
                f"'talks/*.wav', or give each an --output of its own."
            )


def absolute(path: str) -> str:
    """The same from any working directory, and for each file one name."""
    return path if path == STDIN or remote.is_remote(path) else os.path.abspath(path)


def opened(path: str) -> AbstractContextManager[Any]:
    """What `audio.read_blocks` reads of it. Raises AudioError where a store does not give it."""
    if remote.is_remote(path):
        return remote.opened(path)
    return nullcontext(sys.stdin.buffer if path == STDIN else path)


def _recordings(name: str) -> Iterator[str]:
    if os.path.isdir(name):
        for folder, inner, files in os.walk(name):
            inner[:] = sorted(each for each in inner if not each.startswith("."))  # hidden ones are left out
            for file in sorted(files):
                path = os.path.join(folder, file)
                if Path(file).suffix.lower() in SUFFIXES and not file.startswith(".") and not _is_special(path):
                    yield path
    elif name == STDIN or os.path.lexists(name):
        yield name
    else:
        yield from (
            match
            for match in sorted(glob.glob(name, recursive=True))
            if not os.path.isdir(match) and not _is_special(match)
        )


def _is_special(path: str) -> bool:
    """Whether it is a named pipe, a socket or a device, which nobody may ever write to; a broken link is a file that is
    missing."""
    return os.path.exists(path) and not os.path.isfile(path)


def _place(path: str, name: str) -> Path:
    """Where the transcript of a path goes that was found by this name."""
    if path == STDIN:
        return Path("stdin")
    if path == name:
        return Path(_shortened(Path(path).stem))
    root = name
    if not path.startswith(name.rstrip("/") + "/"):  # a pattern
        parts = name.split("/")
        root = "/".join(parts[: next(at for at, part in enumerate(parts) if glob.has_magic(part))])
    inner = Path(os.path.relpath(path, root or "."))
    return inner.with_name(_shortened(inner.stem))


def _shortened(name: str) -> str:
    """A name that leaves room for a format's suffix; what is cut off is replaced by a checksum of the whole."""
    whole = os.fsencode(name)
    if len(whole) <= MAX_STEM_BYTES:
        return name
    mark = f"~{crc32(whole):08x}"
    return whole[: MAX_STEM_BYTES - len(mark)].decode(errors="ignore") + mark
