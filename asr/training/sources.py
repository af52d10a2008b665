"""What training data is made from, and how each kind is read: a person's own recordings, or a published corpus.

A reader gives `RawUtterance`s; their audio is read only when asked for.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asr.audio import manifest
from asr.audio.inputs import SUFFIXES
from asr.audio.manifest import Utterance
from asr.audio.reading import SAMPLE_RATE, duration, read_blocks
from asr.errors import AudioError, ManifestError, RillError

NOISE_PIECE_S = 20.0
CLIPS = "clips"  # the folder beside a table in which its recordings may lie, as Common Voice's do
AUDIO_COLUMNS = ("audio", "path", "file", "audio_filepath", "filename", "wav", "clip")
TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription", "normalized_text")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")


@dataclass(frozen=True)
class RawUtterance:
    """One utterance before it is prepared. `load` gives its samples, mono float32 at 16 kHz."""

    name: str
    load: Callable[[], np.ndarray]
    text: str
    speaker: str | None
    corpus: str
    split: str | None
    noise: bool = False  # there is no speech in it, so it has no text


def from_manifest(path: Path, split: str | None = None) -> Iterator[RawUtterance]:
    """A manifest, or a folder that has one (see `manifest.read`). A line whose recording is not there is a source that
    cannot be read; one that is no entry at all raises ManifestError."""
    folder = path if path.is_dir() else path.parent
    for utterance in manifest.read(path, split, texts=False, there=False):
        yield RawUtterance(
            f"{utterance.path.name}@{utterance.start}",
            partial(manifest.load, utterance),
            utterance.text,
            utterance.speaker,
            utterance.corpus or folder.name,
            utterance.split,
        )


def from_folder(folder: Path) -> Iterator[RawUtterance]:
    """Every recording that has a text file of its own name beside it. Folders inside stand for speakers."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not any(path.with_suffix(".txt").is_file() for path in paths):
        raise ManifestError(f"{folder} holds no recording with a text file of its own name: talk.wav needs talk.txt.")
    for path in paths:
        beside = path.with_suffix(".txt")
        text = beside.read_text("utf-8", errors="replace") if beside.is_file() else ""
        speaker = path.parent.name if path.parent != folder else None
        yield RawUtterance(str(path.relative_to(folder)), partial(decode, path), text, speaker, folder.name, None)


def from_table(path: Path) -> Iterator[RawUtterance]:
    """Rows of a CSV, TSV or JSONL file with a column of paths, relative to it, and one of texts; the usual names of
    columns are known. Columns `speaker`, `corpus` and `split` may be there."""
    rows = list(_rows(path))
    if not rows:
        raise ManifestError(f"{path} has no rows: give a table with columns for the recording and its text.")
    audio, text = (_column(rows[0], names, path) for names in (AUDIO_COLUMNS, TEXT_COLUMNS))
    speaker = next((name for name in SPEAKER_COLUMNS if name in rows[0]), "speaker")
    for row in rows:
        cell = {key: str(value) for key, value in row.items() if value not in (None, "")}
        name = cell.get(audio, "?")
        places = [path.parent / name, path.parent / CLIPS / name]
        place = next((each for each in places if each.is_file()), places[0])
        yield RawUtterance(
            name,
            partial(decode, place),
            cell.get(text, ""),
            cell.get(speaker),
            cell.get("corpus", path.stem),
            cell.get("split"),
        )


def from_kaldi(folder: Path) -> Iterator[RawUtterance]:
    """A Kaldi data folder (`wav.scp`, `text`, perhaps `utt2spk`), or one with such folders inside, which are its
    splits, as speechocean762 comes. Recordings are whole utterances, files and not commands; their paths are relative
    to the folder given."""
    inside = [folder, *sorted(each for each in folder.iterdir() if each.is_dir())] if folder.is_dir() else []
    lists = [each for each in inside if (each / "wav.scp").is_file()]
    if not lists:
        raise ManifestError(f"{folder} holds no wav.scp, nor does a folder in it: give a Kaldi data folder.")
    for each in lists:
        if (each / "segments").exists():
            raise ManifestError(
                f"{each} has `segments`, which are not read: cut its recordings (Kaldi's "
                f"extract-segments.sh), or write a table."
            )
        recordings, texts, speakers = (_mapping(each / name) for name in ("wav.scp", "text", "utt2spk"))
        for name, place in recordings.items():
            yield RawUtterance(
                name,
                partial(decode, folder / place),
                texts.get(name, ""),
                speakers.get(name),
                folder.name,
                None if each == folder else _split_of(each.name),
            )


def _mapping(path: Path) -> dict[str, str]:
    """Kaldi's lines of a key and what belongs to it; nothing where there is no such file. Raises ManifestError."""
    try:
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read ({error}): give lines in UTF-8.") from error
    return {parts[0]: parts[-1].strip() for line in lines if len(parts := line.split(maxsplit=1)) == 2}


def from_noise(path: Path) -> Iterator[RawUtterance]:
    """Recordings without speech, in pieces of 20 s: a folder, or lines as of a manifest but without texts."""
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
        utterances = [Utterance(each, 0, None, "") for each in files]
    else:
        utterances = manifest.read(path, texts=False)
    piece = round(NOISE_PIECE_S * SAMPLE_RATE)
    for utterance in utterances:
        end = utterance.start + utterance.samples if utterance.samples else _samples(utterance.path)
        for start in range(utterance.start, end, piece):
            part = replace(utterance, start=start, samples=min(piece, end - start))
            yield RawUtterance(
                f"{part.path.name}@{start}", partial(manifest.load, part), "", None, "noise", None, noise=True
            )


def from_recipe(name: str, folder: Path) -> Iterator[RawUtterance]:
    """A corpus as its publisher packs it, read by Lhotse's recipe of that name. Raises ManifestError."""
    from lhotse import CutSet

    function = recipes()[name]
    with tempfile.TemporaryDirectory() as scratch:  # some recipes must write what they give back
        wants = inspect.signature(function).parameters.get("output_dir")
        extra = {"output_dir": scratch} if wants and wants.default is inspect.Parameter.empty else {}
        try:
            found = list(_splits(function(folder, **extra)))
        except Exception as error:  # recipes assert, and raise what they like
            raise ManifestError(
                f"Lhotse's recipe '{name}' cannot read {folder} ({' '.join(str(error).split())}): give "
                f"the folder as its publisher packs it, or use a table."
            ) from error
        for split, manifests in found:
            for cut in CutSet.from_manifests(**manifests).trim_to_supervisions(keep_overlapping=False):
                said = cut.supervisions[0]
                text = (said.custom or {}).get("normalized_text") or said.text or ""  # with numbers spelled out
                yield RawUtterance(cut.id, partial(_first_channel, cut), text, said.speaker, name, _split_of(split))


def _split_of(name: str) -> str:
    """A publisher's name of a part of a corpus → train, dev or test."""
    kind = next((each for each in ("dev", "valid", "test", "eval") if each in name.lower()), "train")
    return {"valid": "dev", "eval": "test"}.get(kind, kind)


def readers(kind: str) -> Callable[[Path], Iterator[RawUtterance]]:
    """The function that reads such a source. Raises RillError for an unknown one."""
    if kind in SOURCES:
        return SOURCES[kind]
    if kind not in recipes():
        raise RillError(
            f"'{kind}' is not a kind of source: use {', '.join(SOURCES)}, or a corpus that Lhotse has a "
            f"recipe for ({', '.join(sorted(recipes()))})."
        )
    return partial(from_recipe, kind)


def recipes() -> dict[str, Callable[..., Any]]:
    """Lhotse's recipes by name."""
    module = importlib.import_module("lhotse.recipes")
    return {name.removeprefix("prepare_"): value for name, value in vars(module).items() if name.startswith("prepare_")}


SOURCES: dict[str, Callable[[Path], Iterator[RawUtterance]]] = {
    "index": from_manifest,
    "folder": from_folder,
    "table": from_table,
    "noise": from_noise,
    "kaldi": from_kaldi,
    "speechocean762": from_kaldi,
}


def decode(path: Path) -> np.ndarray:
    """A whole recording of any format. Raises AudioError."""
    return np.concatenate(list(read_blocks(path)))


def _first_channel(cut: Any) -> np.ndarray:
    return cut.resample(SAMPLE_RATE).load_audio()[0]


def _samples(path: Path) -> int:
    """How long a recording is, at 16 kHz; of one that does not say, a piece, and reading that tells what is wrong."""
    try:
        return round((duration(path) or NOISE_PIECE_S) * SAMPLE_RATE)
    except AudioError:
        return round(NOISE_PIECE_S * SAMPLE_RATE)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() in (".jsonl", ".json"):
                yield from (dict(json.loads(line)) for line in file if line.strip())
            else:
                options: dict[str, Any] = {}
                if path.suffix.lower() == ".tsv":
                    quoted = '"' in file.readline()  # Common Voice's are not: there a quotation mark is one
                    options = {"delimiter": "\t", "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE}
                    file.seek(0)
                yield from csv.DictReader(file, **options)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ManifestError(f"The table {path} cannot be read ({error}); give CSV, TSV or JSONL in UTF-8.") from error


def _column(row: dict[str, Any], names: tuple[str, ...], path: Path) -> str:
    for name in names:
        if name in row:
            return name
    raise ManifestError(f"{path} has no column {' or '.join(names[:3])}: its columns are {', '.join(map(str, row))}.")


def _splits(found: dict[str, Any], name: str = "train") -> Iterator[tuple[str, dict[str, Any]]]:
    """Recipes give manifests, manifests by split, or those by language: walk down to the manifests."""
    if "recordings" in found:
        yield name, {key: found[key] for key in ("recordings", "supervisions") if key in found}
    else:
        for key, inner in found.items():
            yield from _splits(inner, key)
