"""Lists of utterances, JSON a line, and the audio of each.

Two forms are read; paths are relative to the manifest's folder:

    {"file": "ls.opus", "start": 16000, "samples": 48000, "text": "…", "speaker": "…", "corpus": "…", "split": "dev"}
    {"audio": "1.flac", "offset": 1.0, "duration": 3.0, "text": "…"}      or "audio_filepath", as in NeMo

`start` and `samples` count at 16 kHz, `offset` and `duration` are seconds; all but the path and `text` may be absent.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr.audio.reading import SAMPLE_RATE, read_blocks, to_mono
from asr.errors import AudioError, ManifestError

NAMES = ("index.jsonl", "manifest.jsonl")  # of a folder's manifest


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of speech and its text. `start` and `samples` count at 16 kHz; no `samples` means up to the end."""

    path: Path
    start: int
    samples: int | None
    text: str
    speaker: str | None = None
    corpus: str | None = None
    split: str | None = None


def read(manifest: Path, split: str | None = None, texts: bool = True, there: bool = True) -> list[Utterance]:
    """The utterances, in order, of a manifest, or of a folder with an index.jsonl or manifest.jsonl; with `split`, only
    those that carry its name. `texts`: each line must have one; `there`: each audio file must be there.

    Raises ManifestError, naming the file, the line and what is wrong with it.
    """
    manifest = Path(manifest)
    if manifest.is_dir():
        found = [manifest / name for name in NAMES if (manifest / name).is_file()]
        if not found:
            raise ManifestError(f"{manifest} holds neither {' nor '.join(NAMES)}: give the manifest itself.")
        manifest = found[0]
    try:
        lines = manifest.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"The manifest {manifest} cannot be read ({error}); give a JSONL file in UTF-8.") from error
    exists = lru_cache(maxsize=None)(Path.is_file)
    utterances = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                utterances.append(_utterance(json.loads(line), manifest.parent, texts))
                if there and not exists(utterances[-1].path):
                    raise ValueError(f"there is no audio file {utterances[-1].path}")
        except ValueError as error:  # json.JSONDecodeError is one
            raise ManifestError(f"{manifest}, line {number}: {error}.") from error
    return [utterance for utterance in utterances if split in (None, utterance.split)]


def of_split(manifest: Path, split: str) -> list[Utterance]:
    """The split's utterances, or all of a manifest that names no splits. Raises ManifestError where there are none."""
    utterances = read(manifest)
    if any(utterance.split for utterance in utterances):
        utterances = [utterance for utterance in utterances if utterance.split == split]
    if not utterances:
        raise ManifestError(f"{manifest} has no utterance of the split '{split}': name another.")
    return utterances


def by_corpus(utterances: Iterable[Utterance], limit: int | None = None) -> dict[str, list[Utterance]]:
    """Utterances of each corpus ("-" where none is named), at most `limit` of them, spread evenly over it."""
    corpora: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        corpora.setdefault(utterance.corpus or "-", []).append(utterance)
    return {
        corpus: members
        if limit is None or limit >= len(members)
        else [members[i * len(members) // limit] for i in range(limit)]
        for corpus, members in corpora.items()
    }


def load(utterance: Utterance) -> NDArray[np.float32]:
    """Its samples, mono float32 at 16 kHz, the same however often and in whatever order utterances are read.

    Files at 16 kHz that libsndfile reads stay open and are cut at the very sample: utterances out of a long shard take
    as long as decoding them. Any other file is decoded whole, and the last one kept.
    Raises AudioError if the file cannot be read or has no audio at that place.
    """
    path, start = utterance.path, utterance.start
    shard = _shard(path, os.getpid(), threading.get_ident())
    if shard is None:
        samples = _decode(path)[start:][: utterance.samples].copy()
    else:
        try:
            shard.seek(0)  # without it an Opus decoder that happens to stand at `start` gives slightly other samples
            shard.seek(min(start, len(shard)))
            samples = to_mono(shard.read(-1 if utterance.samples is None else utterance.samples, "float32"))
        except (soundfile.SoundFileError, AudioError) as error:
            raise AudioError(f"{path}: {error}") from error
    if not len(samples):
        raise AudioError(f"{path}: has no audio at {start / SAMPLE_RATE:.2f} s; check the manifest.")
    return samples


@lru_cache(maxsize=16)
def _shard(path: Path, process: int, thread: int) -> soundfile.SoundFile | None:
    """The open file if libsndfile reads it at 16 kHz. It has one position, so each process and thread opens its own."""
    try:
        file = soundfile.SoundFile(path)
    except soundfile.SoundFileError:
        return None
    return file if file.samplerate == SAMPLE_RATE and file.seekable() else None


@lru_cache(maxsize=1)
def _decode(path: Path) -> NDArray[np.float32]:
    return np.concatenate(list(read_blocks(path)))


def _utterance(entry: Any, folder: Path, texts: bool) -> Utterance:
    """One line's entry; raises ValueError that says what is missing or wrong."""
    if not isinstance(entry, dict):
        raise ValueError("it is not a JSON object")
    name = entry.get("file") or entry.get("audio") or entry.get("audio_filepath")
    if not isinstance(name, str):
        raise ValueError('the path is missing: "file", "audio" or "audio_filepath"')
    if texts and not isinstance(entry.get("text"), str):
        raise ValueError('"text" is missing')
    start, samples = _position(entry, "start", "offset"), _position(entry, "samples", "duration")
    if samples == 0:
        raise ValueError("the utterance has no length")
    labels = (None if entry.get(key) is None else str(entry[key]) for key in ("speaker", "corpus", "split"))
    return Utterance(folder / name, start or 0, samples, str(entry.get("text") or ""), *labels)


def _position(entry: dict[str, Any], in_samples: str, in_seconds: str) -> int | None:
    """A count of samples at 16 kHz under either key; None if both are absent."""
    key, rate = (in_samples, 1) if entry.get(in_samples) is not None else (in_seconds, SAMPLE_RATE)
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f'"{key}" is {value!r} and should be a number from 0 up')
    return round(value * rate)
