"""Training's fast path: log-mels computed once, kept as float16 and augmented as they are.

    prepared folder → FOLDER/features-HASH/train.f16 (memory-mapped), train.clips.jsonl → batches of mel frames

No audio is decoded and no loader process runs, so an update spends its time in the network. The augmentation works on
mel power: speed by interpolation, noise added as power, rooms as an exponential tail of the power (Polack's model of
late reverberation), telephones and microphones as gains of the bands. Each batch draws from its own seed, so a resumed
run sees the batches that an unbroken one sees.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr.atomic import replacing
from asr.audio.features import Frontend
from asr.errors import ManifestError, RecipeError
from asr.training.data import GAPS_S, MAX_JOIN_S, SPEEDS, Batch
from asr.training.prepare import load_prepared
from asr.training.recipe import AugmentConfig, DataConfig

LENGTH_JITTER = 0.08  # of the lengths that batches are sorted by, so that an epoch's batches are not the last one's
FILLER_FRAMES = 100
TELEPHONE_HZ = 3400.0
CONTROL_POINTS = 6  # of a random microphone's response, spread over the bands
REVERBERATION_S = (0.15, 0.7)  # time in which the tail falls by 60 dB
TAIL_DB = (0.0, 14.0)  # the direct sound over the tail
SILENCE_DB = 35.0  # a gap between joined utterances lies so far below them


@dataclass(frozen=True)
class Clip:
    first: int  # row of the features
    frames: int
    text: str
    corpus: str
    features: np.ndarray[Any, Any]  # memory-mapped, of all clips of the folder

    def mel(self) -> np.ndarray[Any, Any]:
        return np.asarray(self.features[self.first : self.first + self.frames], np.float32)


def cached(folder: Path, split: str, frontend: Frontend) -> list[Clip]:
    """A prepared folder's clips with their features, which are computed where they are not there yet."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(frontend.config), sort_keys=True).encode()).hexdigest()[:12]
    store = folder / f"features-{digest}"
    rows = store / f"{split}.clips.jsonl"
    source = folder / f"{split}.jsonl.gz"
    if not rows.exists() or (source.exists() and source.stat().st_mtime > rows.stat().st_mtime):
        compute(folder, split, frontend, store)
    with rows.open(encoding="utf-8") as file:
        listed = [json.loads(line) for line in file]
    if not listed:
        return []
    features = np.memmap(store / f"{split}.f16", np.float16, "r").reshape(-1, frontend.bands)
    return [Clip(each["first"], each["frames"], each["text"], each["corpus"], features) for each in listed]


def compute(folder: Path, split: str, frontend: Frontend, store: Path) -> None:
    """Write the features of a split, and last the list of its clips, which makes them valid."""
    first, lines = 0, []
    with replacing(store / f"{split}.f16") as part, part.open("wb") as file:
        for cut in load_prepared(folder, split):
            try:
                mel = frontend(cut.load_audio()[0])
            except Exception:  # whatever a decoder throws: training goes on without this clip
                continue
            if len(mel):
                file.write(mel.astype(np.float16).tobytes())
                text = " ".join(each.text for each in cut.supervisions if each.text)
                corpus = next((each.custom["corpus"] for each in cut.supervisions if each.custom), "")
                row = {"first": first, "frames": len(mel), "text": text, "corpus": corpus}
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
                first += len(mel)
    with replacing(store / f"{split}.clips.jsonl") as part:
        part.write_text("".join(lines), "utf-8")


class FeatureBatches:
    """Batches from cached features, epoch after epoch."""

    def __init__(self, frontend: Frontend, data: DataConfig, augment: AugmentConfig) -> None:
        self.frontend, self.data, self.augment = frontend, data, augment
        self.floor = math.log(frontend.config.log_floor)
        self.frames_per_batch = round(data.batch_seconds / frontend.seconds_per_frame)
        dev = {clip.text for folder in data.dev for clip in cached(Path(folder), "dev", frontend)}
        everything = [clip for folder in data.train for clip in cached(Path(folder), "train", frontend)]
        self.clips = [clip for clip in everything if clip.text not in dev]  # a sentence of dev is not learned from
        if not self.clips:
            raise ManifestError("The training folders hold no sentence that dev does not: add folders to data.train.")
        if unknown := set(data.weights) - {clip.corpus for clip in self.clips}:
            raise RecipeError(f"data.weights names no corpus of the training folders: {', '.join(sorted(unknown))}.")
        self.noises = [clip.mel() for clip in cached(Path(data.noise), "train", frontend)] if data.noise else []

    def epoch(
        self,
        strength: Callable[[int], float],
        *,
        epoch: int,
        skip: int,
        first: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        """One epoch from its batch `skip` on; `first` is the update that this one is. See `data.batches`."""
        for number, clips in enumerate(self.plan(random.Random(hash((seed, epoch))))[skip:]):
            update = first + number
            yield self.load(clips[rank::world], strength(update), random.Random(hash((seed, update))))

    def plan(self, rng: random.Random) -> list[list[Clip]]:
        """All clips, as often as their corpus's weight says, in batches of like length, in random order."""
        batches: list[list[Clip]] = [[]]
        drawn = (
            clip for clip in self.clips for _ in range(int(self.data.weights.get(clip.corpus, 1.0) + rng.random()))
        )
        jittered = ((clip.frames * rng.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER), clip) for clip in drawn)
        for _, clip in sorted(jittered, key=lambda each: each[0]):
            if batches[-1] and (len(batches[-1]) + 1) * clip.frames > self.frames_per_batch:
                batches.append([])
            batches[-1].append(clip)
        rng.shuffle(batches)
        return batches

    def load(self, clips: Sequence[Clip], strength: float, rng: random.Random) -> Batch:
        """A batch, augmented; silence where there is no clip for this process."""
        if not clips:
            silence = torch.full((1, FILLER_FRAMES, self.frontend.bands), self.floor)
            return Batch(silence, torch.tensor([FILLER_FRAMES]), [""], [], True, self.frontend.seconds_per_frame)
        c = self.augment

        def chance(probability: float) -> bool:
            return rng.random() < probability * strength

        speed = rng.choice(SPEEDS) if chance(c.speed) else 1.0
        rows = [(change_speed(clip.mel(), speed), clip.text) for clip in clips]
        if chance(c.join):
            rows = self.join(rows, rng)
        seconds = self.frontend.seconds_per_frame
        changed = []
        for mel, text in rows:
            if chance(c.rooms):
                mel = reverberate(mel, rng.uniform(*REVERBERATION_S) / seconds, rng.uniform(*TAIL_DB))
            if self.noises and chance(c.noise):
                mel = add_noise(mel, self.noise(len(mel), rng), rng.uniform(c.least_snr, c.most_snr))
            mel = mel + nepers(rng.uniform(-c.gain, c.gain))
            if chance(1.0) and c.response:
                mel = mel + response(self.frontend.bands, c.response, rng)
            if chance(c.narrow):
                mel = self.narrow(mel)
            changed.append((mel, text))
        if self.noises and chance(c.noise_only):
            longest = max(len(mel) for mel, _ in changed)
            noise = self.noise(max(50, round(rng.uniform(0.5, 1.0) * longest)), rng)
            changed.append((noise + nepers(rng.uniform(-2 * c.gain, c.gain)), ""))
        lengths = torch.tensor([len(mel) for mel, _ in changed])
        batch = torch.full((len(changed), int(lengths.max()), self.frontend.bands), self.floor)
        for row, (mel, _) in zip(batch, changed, strict=True):
            row[: len(mel)] = torch.from_numpy(np.logaddexp(mel, np.float32(self.floor)))
        return Batch(
            batch, lengths, [text for _, text in changed], [], seconds_per_frame=self.frontend.seconds_per_frame
        )

    def join(self, rows: list[tuple[np.ndarray, str]], rng: random.Random) -> list[tuple[np.ndarray, str]]:
        """2 to 4 utterances in a row become one, as in running speech, with silence between them."""
        count, seconds = rng.randint(2, 4), self.frontend.seconds_per_frame
        joined: list[tuple[np.ndarray, str]] = []
        for number, (mel, text) in enumerate(rows):
            if number % count and (len(joined[-1][0]) + len(mel)) * seconds < MAX_JOIN_S:
                before, said = joined[-1]
                quiet = np.float32(np.log(np.exp(mel).mean()) + nepers(-SILENCE_DB))
                gap = np.full((round(rng.uniform(*GAPS_S) / seconds), mel.shape[1]), quiet, np.float32)
                gap += np.random.default_rng(rng.getrandbits(32)).normal(0, 0.8, gap.shape).astype(np.float32)
                joined[-1] = np.concatenate([before, gap, mel]), f"{said} {text}".strip()
            else:
                joined.append((mel, text))
        return joined

    def noise(self, frames: int, rng: random.Random) -> np.ndarray:
        """So many frames of a recording, repeated where it is shorter."""
        noise = rng.choice(self.noises)
        first = rng.randrange(max(1, len(noise) - frames))
        return np.resize(noise[first : first + frames], (frames, noise.shape[1]))

    def narrow(self, mel: np.ndarray) -> np.ndarray:
        """As through a telephone: nothing above 3.4 kHz."""
        config = self.frontend.config
        low, high, cut = (math.log1p(f / 700) for f in (config.f_min, config.f_max, TELEPHONE_HZ))
        mel = mel.copy()
        mel[:, round(config.mels * (cut - low) / (high - low)) :] = self.floor
        return mel


def nepers(decibels: float) -> np.float32:
    """A gain in the unit of log power."""
    return np.float32(decibels * math.log(10) / 10)


def change_speed(mel: np.ndarray, speed: float) -> np.ndarray:
    if speed == 1.0 or len(mel) < 2:
        return mel
    place = np.arange(0, len(mel) - 1, speed, dtype=np.float32)
    index = place.astype(np.int64)
    return mel[index] + (mel[index + 1] - mel[index]) * (place - index)[:, None]


def reverberate(mel: np.ndarray, frames: float, direct_db: float) -> np.ndarray:
    """Add a tail that falls by 60 dB in so many frames, and is `direct_db` weaker than what makes it."""
    from scipy.signal import lfilter

    power, decay = np.exp(mel), 10 ** (-6 / frames)
    tail = lfilter([0.0, (1 - decay) * 10 ** (-direct_db / 10)], [1.0, -decay], power, axis=0)
    return np.log(power + tail + 1e-30).astype(np.float32)


def add_noise(mel: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Noise whose mean power is `snr` dB below the utterance's."""
    level = np.log(np.exp(mel).mean() / max(float(np.exp(noise).mean()), 1e-12))
    return np.logaddexp(mel, noise + np.float32(level) - nepers(snr))


def response(bands: int, most_db: float, rng: random.Random) -> np.ndarray:
    """A microphone's: gains of the bands, a smooth random curve within ±`most_db`."""
    points = [rng.uniform(-most_db, most_db) for _ in range(CONTROL_POINTS)]
    gains = np.interp(np.linspace(0, CONTROL_POINTS - 1, bands), np.arange(CONTROL_POINTS), points)
    return (gains * math.log(10) / 10).astype(np.float32)
