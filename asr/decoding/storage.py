"""Memory-mapped arrays in one file: the search's n-gram and lexicon tree.

A file is a safetensors file (8 bytes of length, a JSON header, the arrays), so that any tool for those opens it. It is
mapped, never copied: it is ready in milliseconds, and all processes share its pages. Its checksum is compared on
opening; what a damaged file holds is never followed.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from asr.atomic import replacing
from asr.errors import CheckpointError

FORMAT = "1"
BLOCK = 512  # 64-bit words summed into one; the CRC-32 of the sums is the checksum, at the speed of the memory
LONGEST_HEADER = 1 << 20  # bytes
DTYPES = {"U8": np.uint8, "I32": np.int32, "U32": np.uint32, "I64": np.int64, "U64": np.uint64, "F32": np.float32}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


class Words(Sequence[str]):
    """The words of an array of UTF-8, a line each. They become strings when they are asked for: so many strings would
    take six times as much memory. Raises ValueError where they are no UTF-8."""

    def __init__(self, text: np.ndarray) -> None:
        text.tobytes().decode()
        self.text = text
        self.ends = np.append(np.flatnonzero(text == ord("\n")), len(text)).astype(np.int32)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return list(self)[place]
        number = range(len(self))[place]
        begin = self.ends[number - 1] + 1 if number else 0
        return self.text[begin : self.ends[number]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return iter(self.text.tobytes().decode().split("\n"))

    def __len__(self) -> int:
        return len(self.ends)


def write(path: Path, kind: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str] | None = None) -> None:
    """Arrays of the types in `DTYPES`, by name, with facts about them. The file appears whole or not at all."""
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # each array then lies at its alignment
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        start, end = end, end + arrays[name].nbytes
        header[name] = {"dtype": NAMES[arrays[name].dtype], "shape": arrays[name].shape, "data_offsets": [start, end]}
    data = b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in order)
    checksum = f"{_checksum(np.frombuffer(data, np.uint8)):08x}"
    header["__metadata__"] = {**(facts or {}), "kind": kind, "format": FORMAT, "checksum": checksum}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as part, part.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.write(data)


def read(
    path: Path, kind: str, expected: Mapping[str, type[np.generic]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The read-only arrays that `expected` names with their types, and the facts. Raises CheckpointError."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _arrays(mapped, kind, expected)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} is damaged or of another version ({reason:.100}): copy the checkpoint again, or "
            f"make it anew with `asr lm`."
        ) from error


def frozen(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same, read-only as those of a mapped file are: compiled code is compiled once for both."""
    for array in arrays.values():
        array.flags.writeable = False
    return dict(arrays)


def _arrays(
    mapped: mmap.mmap, kind: str, expected: Mapping[str, type[np.generic]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    (length,) = struct.unpack_from("<Q", mapped)
    if length > min(LONGEST_HEADER, len(mapped) - 8):
        raise ValueError("its header is cut off")
    header = json.loads(mapped[8 : 8 + length])
    facts = header.pop("__metadata__")
    if (facts["kind"], facts["format"]) != (kind, FORMAT):
        raise ValueError(f"it holds {facts['kind']}, format {facts['format']}")
    data = np.frombuffer(mapped, np.uint8, offset=8 + length)
    arrays, sizes = {}, 0
    for name, dtype in expected.items():
        entry = header[name]
        start, end = entry["data_offsets"]
        count = math.prod(entry["shape"])
        size = count * np.dtype(dtype).itemsize
        if DTYPES[entry["dtype"]] is not dtype or not 0 <= start <= end <= len(data) or end - start != size:
            raise ValueError(f"'{name}' is not as large as its header says")
        arrays[name] = np.frombuffer(mapped, dtype, count, 8 + length + start).reshape(entry["shape"])
        sizes += size
    if sizes != len(data):
        raise ValueError("it is cut off, or has more than it should")
    if f"{_checksum(data):08x}" != facts["checksum"]:
        raise ValueError("its checksum is wrong")
    return arrays, facts


def _checksum(data: np.ndarray) -> int:
    """Of bytes (n,)."""
    whole = len(data) // (8 * BLOCK) * 8 * BLOCK
    sums = data[:whole].view("<u8").reshape(-1, BLOCK).sum(axis=1, dtype=np.uint64)
    return zlib.crc32(data[whole:].tobytes(), zlib.crc32(sums.tobytes()))
