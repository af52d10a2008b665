"""Recordings and their texts → prepared folders that training reads: 16 kHz FLAC and Lhotse manifests.

    OUT/train.jsonl.gz, dev.jsonl.gz, …   Lhotse cuts, one an utterance, with its normalized text
    OUT/index.jsonl                       the same as a manifest, which `asr evaluate` and `asr tune` take
    OUT/audio/SPLIT/000/*.flac            its audio, mono, 16 kHz
    OUT/dropped.tsv                       every utterance that was left out, and why

What is read: see `asr.training.sources`. One bad clip never stops the work: it is dropped, counted and named.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from asr.audio.reading import SAMPLE_RATE, AudioWarning
from asr.errors import ManifestError, RillError
from asr.text.normalize import has_digits, normalize
from asr.training.sources import RawUtterance

if TYPE_CHECKING:
    from lhotse import CutSet

MIN_UTTERANCE_S, MAX_UTTERANCE_S = 0.2, 30.0  # what can be learned from
MAX_CHARACTERS_PER_S = 30.0  # nobody speaks faster, so the text is not what is said
MIN_CHARACTERS_PER_S = 0.5  # with fewer most of the text is missing
RECORDINGS_PER_FOLDER = 1000

OnProgress = Callable[[str, float], None]


@dataclass
class PreparationReport:
    """What `prepare` kept and dropped."""

    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))  # (split, corpus)
    utterances: Counter[tuple[str, str]] = field(default_factory=Counter)
    speakers: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    characters: Counter[str] = field(default_factory=Counter)
    dropped: list[tuple[str, str, str]] = field(default_factory=list)  # reason, name, detail


def prepare(
    sources: Iterable[RawUtterance],
    out: Path,
    *,
    language: str = "en",
    dev: float = 0.0,
    digits: bool = True,
    on_progress: OnProgress = lambda corpus, seconds: None,
) -> PreparationReport:
    """Write a prepared folder. Utterances of no split go to `train`, those of a fraction `dev` of the speakers (of the
    utterances, where there are fewer than two) to `dev`. Without `digits` a text that has any is dropped, since they
    may have been said otherwise than `normalize` spells them. `on_progress(corpus, seconds)` is
    called with the audio that was read.

    Raises RillError where nothing could be used, and where `out` was prepared before: a split of another time that
    stays beside the new ones could hold the same utterances.
    """
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    if any(out.glob("*.jsonl.gz")):
        raise RillError(f"{out} holds prepared data already: remove it, or give another folder.")
    sources = list(sources)
    held_out = _held_out([source for source in sources if not source.split], dev)
    report = PreparationReport()
    writers: dict[str, Any] = {}
    seen: set[bytes] = set()
    out.mkdir(parents=True, exist_ok=True)
    index = (out / "index.jsonl").open("w", encoding="utf-8")
    try:
        for source in sources:
            text = normalize(source.text, language)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", AudioWarning)  # of a damaged one the text says more than is heard
                    samples = source.load()
            except Exception as error:  # whatever a decoder throws
                report.dropped.append(("unreadable", source.name, str(error)))
                continue
            on_progress(source.corpus, len(samples) / SAMPLE_RATE)
            digest = hashlib.sha1(samples.tobytes() + text.encode()).digest()
            reason = (
                "double"
                if digest in seen
                else unusable_audio(samples)
                or (
                    None
                    if source.noise
                    else unusable_text(text if digits else source.text, text, len(samples) / SAMPLE_RATE)
                )
            )
            seen.add(digest)
            if reason:
                report.dropped.append((reason, source.name, source.text))
                continue
            split = source.split or ("dev" if source in held_out else "train")
            key = (split, source.corpus)
            number = sum(count for (other, _), count in report.utterances.items() if other == split)
            # digest: two folders prepared from different sources never share a name
            name = f"{source.corpus}-{digest.hex()[:16]}".replace("/", "-")
            path = out / "audio" / split / f"{number // RECORDINGS_PER_FOLDER:03d}" / f"{name}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
            seconds = len(samples) / SAMPLE_RATE
            recording = Recording(name, [_audio_source(path.relative_to(out))], SAMPLE_RATE, len(samples), seconds)
            supervision = SupervisionSegment(
                name,
                name,
                0.0,
                seconds,
                text=text,
                language=language,
                speaker=source.speaker,
                custom={"corpus": source.corpus},
            )
            if split not in writers:
                writers[split] = CutSet.open_writer(out / f"{split}.jsonl.gz", overwrite=True)
            writers[split].write(MonoCut(name, 0.0, seconds, 0, supervisions=[supervision], recording=recording))
            index.write(
                json.dumps(
                    {
                        "audio": str(path.relative_to(out)),
                        "text": text,
                        "speaker": source.speaker,
                        "corpus": source.corpus,
                        "split": split,
                    },
                    ensure_ascii=False,
                )
                + "\n"
            )
            report.seconds[key] += seconds
            report.utterances[key] += 1
            report.speakers[key].update([source.speaker] if source.speaker else [])
            report.characters.update(text)
    finally:
        for writer in (index, *writers.values()):
            writer.close()
    lines = ("\t".join(" ".join(part.split()) for part in each) for each in report.dropped)
    (out / "dropped.tsv").write_text("".join(f"{line}\n" for line in ("reason\tname\tdetail", *lines)), "utf-8")
    if not report.utterances:
        raise RillError(f"Nothing could be used: see {out / 'dropped.tsv'}, which names every utterance and its fault.")
    return report


def unusable_audio(samples: np.ndarray) -> str | None:
    """Why nothing can be learned from this audio, or None."""
    seconds = len(samples) / SAMPLE_RATE
    if not np.isfinite(samples).all() or not samples.any():
        return "no sound"
    if seconds < MIN_UTTERANCE_S:
        return f"shorter than {MIN_UTTERANCE_S} s"
    return f"longer than {MAX_UTTERANCE_S:.0f} s" if seconds > MAX_UTTERANCE_S else None


def unusable_text(written: str, text: str, seconds: float) -> str | None:
    """Why a text, normalized, cannot be what is said in so many seconds, or None. `written` is the same or what it was
    before: the one that must be without digits."""
    if not text:
        return "no text"
    if has_digits(written):
        return "digits: not known how they were said"
    if len(text) > MAX_CHARACTERS_PER_S * seconds:
        return f"too fast: more than {MAX_CHARACTERS_PER_S:.0f} characters a second"
    if len(text) < MIN_CHARACTERS_PER_S * seconds:
        return f"too slow: fewer than {MIN_CHARACTERS_PER_S} characters a second"
    return None


def load_prepared(folder: Path, split: str) -> CutSet:
    """The cuts of a prepared folder (or of Lhotse Shar shards in `folder/SPLIT`, read as a stream), audio paths made
    absolute. Raises ManifestError."""
    from lhotse import CutSet

    if (folder / split).is_dir() and any((folder / split).glob("cuts.*.jsonl*")):
        return CutSet.from_shar(in_dir=folder / split)
    path = folder / f"{split}.jsonl.gz"
    if not path.is_file():
        raise ManifestError(
            f"{folder} holds no prepared split '{split}': make it with `asr prepare` (--dev 0.1 keeps "
            f"a tenth of the speakers for dev)."
        )
    return CutSet.from_file(path).with_recording_path_prefix(folder).to_eager()


def _audio_source(path: Path) -> Any:
    from lhotse.audio import AudioSource

    return AudioSource("file", [0], str(path))


def _held_out(sources: Sequence[RawUtterance], dev: float) -> set[RawUtterance]:
    """About a fraction `dev` of the speakers, but not all of them, and where it is less than one that who says least;
    of the utterances where there are not two speakers."""
    speakers = {source: source.speaker or source.name for source in sources}
    if len(set(speakers.values())) < 2:
        speakers = {source: source.name for source in sources}
    said = Counter(speakers.values())
    chosen = sorted((name for name in said if _share(name) < dev), key=_share)[: len(said) - 1]
    if dev and not chosen and len(said) > 1:
        chosen = [min(said, key=lambda name: (said[name], _share(name)))]
    return {source for source in sources if speakers[source] in set(chosen)}


def _share(name: str) -> float:
    """A number in [0, 1) that is always the same for a name, so that more recordings change nobody's side."""
    return int.from_bytes(hashlib.sha1(name.encode()).digest()[:4], "big") / 2**32
