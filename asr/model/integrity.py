"""What a checkpoint's config.json says of its files: size and SHA-256, so that damage is found before anything uses it.

Loading compares every file but those that are mapped into memory: they have a checksum of their own, compared on
opening. People may edit texts: a change there is a warning, and an error anywhere else. Checkpoints of earlier versions
list nothing, and load as they are.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.errors import CheckpointError

CONFIG, WEIGHTS, LEXICON, CARD = "config.json", "model.safetensors", "lexicon.txt", "MODEL_CARD.md"
GRAPHS = ("stem.onnx", "encoder.onnx", "encoder-int8.onnx")
MAPPED = ("ngram.safetensors", "lexicon.safetensors")
OPTIONAL = (
    LEXICON,
    *MAPPED,
    "neural_lm.safetensors",
    "pronunciation.safetensors",
    "punctuation.safetensors",
)
FILES = (CONFIG, WEIGHTS, *GRAPHS, *OPTIONAL, CARD)
TEXTS = (CONFIG, LEXICON, CARD)
DERIVED = (*GRAPHS, "lexicon.safetensors")  # made again where they are missing


class CheckpointWarning(UserWarning):
    """Part of a checkpoint is not as it should be, and somebody may have meant it."""


@dataclass(frozen=True)
class FileFacts:
    """Of config.json: of its JSON without the key `files`."""

    size: int  # bytes
    sha256: str


def measure(path: Path) -> FileFacts:
    """Raises OSError, and ValueError for a config.json that is none."""
    if path.name == CONFIG:
        return measure_config(json.loads(path.read_text(encoding="utf-8")))
    with path.open("rb") as file:
        digest = hashlib.sha256()
        size = 0
        while block := file.read(1 << 18):
            digest.update(block)
            size += len(block)
    return FileFacts(size, digest.hexdigest())


def measure_config(data: Mapping[str, Any]) -> FileFacts:
    text = to_json({key: value for key, value in data.items() if key != "files"})
    return FileFacts(len(text), hashlib.sha256(text).hexdigest())


def to_json(data: Mapping[str, Any]) -> bytes:
    """As config.json is written."""
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def check(folder: Path, listed: Mapping[str, FileFacts], *names: str) -> None:
    """Compare these files of a checkpoint, or all that are listed, with what config.json says of them.

    Raises CheckpointError, which names the file and the remedy; warns with CheckpointWarning of a text.
    """
    for name in names or listed:
        if name in listed and (problem := damage(folder, name, listed[name])):
            if name not in TEXTS:
                raise CheckpointError(problem)
            warnings.warn(problem, CheckpointWarning, stacklevel=3)


def damage(folder: Path, name: str, expected: FileFacts, mapped: bool = False) -> str | None:
    """What is wrong with a file, as a sentence, or None. With `mapped`, files that are mapped are read, too."""
    path = folder / name
    try:
        size = path.stat().st_size
        if name == CONFIG or (size == expected.size and (mapped or name not in MAPPED)):
            found = measure(path)
        else:
            found = FileFacts(size, expected.sha256)
    except FileNotFoundError:
        if name in DERIVED:
            return None
        return f"{path} is missing: copy the whole checkpoint folder, or {_accept(folder)} to do without."
    except (OSError, ValueError) as error:
        return f"{path} cannot be read ({' '.join(str(error).split()):.200}): copy it again."
    if found == expected:
        return None
    difference = (
        "is not the file" if found.size == expected.size else f"has {found.size} bytes instead of the {expected.size}"
    )
    return (
        f"{path} {difference} that config.json lists: if it is damaged, copy the checkpoint again; if it was changed "
        f"on purpose, {_accept(folder)}."
    )


def _accept(folder: Path) -> str:
    return f"run `asr doctor --renew --checkpoint {folder}`"
