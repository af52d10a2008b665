"""What training is fed: prepared cuts, sampled into batches, augmented and decoded in loader processes.

    prepared folders → sampler (Lhotse's dynamic buckets) → augmentation of cuts (Lhotse) → mel frames and token targets

Everything random in a batch comes from a seed of its own, so that a resumed run sees the very batches that an unbroken
one sees, with any number of loader processes. A clip that cannot be read is left out of its batch and named.
"""

from __future__ import annotations

import random
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asr.audio.features import Frontend
from asr.audio.reading import SAMPLE_RATE
from asr.decoding.g2p import G2P
from asr.decoding.lexicon import read_spellings
from asr.errors import ManifestError, RecipeError
from asr.model.hardware import set_threads
from asr.model.tokens import CHARACTERS, PHONEMES, TokenSet
from asr.training.prepare import load_prepared
from asr.training.recipe import AugmentConfig, DataConfig

if TYPE_CHECKING:
    from lhotse import CutSet
    from lhotse.dataset.sampling.base import CutSampler

BUCKETS = 30
MAX_JOIN_S = 16.0  # of utterances joined into one
GAPS_S = (0.1, 1.0)  # between joined utterances
SPEEDS = (0.9, 1.1)


@dataclass
class Batch:
    """A process's utterances of one update: mel frames (B, T, bands), of each row the first `lengths` (B,)."""

    mel: Tensor
    lengths: Tensor
    texts: list[str]
    failed: list[str]  # "clip: why it could not be read"; of joined ones all are named
    filler: bool = False  # silence that nothing is learned from, since every process needs a batch
    seconds_per_frame: float = 0.01

    @property
    def seconds(self) -> float:
        """Of speech."""
        return float(self.lengths.sum()) * self.seconds_per_frame

    def parts(self, count: int) -> Iterator[Batch]:
        """At most `count` batches that are this one together."""
        for index in range(min(count, len(self.texts))):
            lengths = self.lengths[index::count]
            yield Batch(
                self.mel[index::count, : int(lengths.max())],
                lengths,
                self.texts[index::count],
                [],
                self.filler,
                self.seconds_per_frame,
            )


class TargetEncoder:
    """Texts to targets: each token set's indices, every word followed by the set's boundary."""

    def __init__(self, tokens: Mapping[str, TokenSet], config: DataConfig) -> None:
        self.tokens = dict(tokens)
        self.index = {name: {symbol: i for i, symbol in enumerate(each.symbols)} for name, each in tokens.items()}
        self.pronunciations: dict[str, tuple[str, ...]] = {}
        self.g2p: G2P | None = None
        self.unpronounced: set[str] = set()
        if PHONEMES in tokens:
            if not config.lexicon:
                raise RecipeError("The model has a head for phonemes: name a lexicon in the recipe's data.lexicon.")
            self.pronunciations = {word: each[0] for word, each in read_lexicon(Path(config.lexicon)).items()}
            self.g2p = G2P.load(Path(config.pronunciation)) if config.pronunciation else None

    def targets(self, text: str) -> dict[str, list[int]]:
        """Indices of each token set. A word without any pronunciation is left out of the phonemes and remembered."""
        result = {}
        for name, index in self.index.items():
            boundary = self.tokens[name].boundary_index
            targets: list[int] = []
            for word in text.split():
                symbols = self.pronounce(word) if name == PHONEMES else tuple(word)
                targets += [index[symbol] for symbol in symbols if symbol in index]
                targets += [boundary] if symbols else []
            result[name] = targets
        return result

    def pronounce(self, word: str) -> tuple[str, ...]:
        if word not in self.pronunciations:
            found = self.g2p.pronounce(word) if self.g2p else []
            self.pronunciations[word] = found[0] if found else ()
            if not found:
                self.unpronounced.add(word)
        return self.pronunciations[word]


def read_lexicon(path: Path) -> dict[str, list[tuple[str, ...]]]:
    """The pronunciations of each word of a `word TAB phonemes` file. Raises RecipeError and CheckpointError."""
    found: dict[str, list[tuple[str, ...]]] = {}
    try:
        for word, phonemes in read_spellings(path):
            found.setdefault(word, []).append(phonemes)
    except OSError as error:
        raise RecipeError(f"The lexicon {path} cannot be read ({error}): make one with `asr lm`.") from error
    return found


def token_sets(cuts: CutSet, config: DataConfig) -> dict[str, TokenSet]:
    """Characters are those of the texts, whatever the alphabet; phonemes those of the lexicon, where there is one."""
    characters = sorted({character for cut in cuts for character in cut.supervisions[0].text} - {" "})
    sets = {CHARACTERS: ("-", " ", *characters)}
    if config.lexicon:
        known = read_lexicon(Path(config.lexicon)).values()
        sets[PHONEMES] = ("-", "|", *sorted({phoneme for listed in known for each in listed for phoneme in each}))
    return {
        name: TokenSet(symbols, symbols[0], symbols[1], (1 / len(symbols),) * len(symbols))
        for name, symbols in sets.items()
    }


def load_cuts(folders: Sequence[str], split: str) -> CutSet:
    """All prepared folders' cuts of a split."""
    from lhotse import CutSet

    if not folders:
        raise ManifestError(f"The recipe names no folder for '{split}': give prepared folders in [data].")
    parts = [load_prepared(Path(folder), split) for folder in folders]
    if any(part.is_lazy for part in parts):
        return CutSet.mux(*parts, stop_early=False, seed=0) if len(parts) > 1 else parts[0]
    return CutSet.from_cuts(cut for part in parts for cut in part)


def plan(cuts: CutSet, config: DataConfig, epoch: int, seed: int) -> Iterator[CutSet]:
    """The batches of an epoch: short to long in the first ones, then utterances of like length, shuffled."""
    from lhotse.dataset.sampling import DynamicBucketingSampler, SimpleCutSampler

    alone: dict[str, Any] = {"max_duration": config.batch_seconds, "world_size": 1, "rank": 0, "seed": seed}
    sampler: CutSampler
    if epoch < config.sorted_epochs and not cuts.is_lazy:
        sampler = SimpleCutSampler(cuts.sort_by_duration(ascending=True), **alone)
    elif sum(1 for _ in islice(cuts, BUCKETS)) < BUCKETS:
        sampler = SimpleCutSampler(cuts, shuffle=True, **alone)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using DynamicBucketingSampler with an eager")  # it is small
            sampler = DynamicBucketingSampler(cuts, num_buckets=BUCKETS, shuffle=True, **alone)
    sampler.set_epoch(epoch)
    yield from sampler


class Augment:
    """Changes cuts as Lhotse does, lazily: nothing is computed before the audio is loaded."""

    def __init__(self, config: AugmentConfig, noise: CutSet | None, rooms: Sequence[Any]) -> None:
        self.config = config
        self.noises = list(noise) if noise is not None else []
        self.rooms = list(rooms)

    def __call__(self, cuts: Sequence[Any], strength: float, rng: random.Random) -> list[Any]:
        """`strength` 0 … 1 scales every chance."""
        c = self.config

        def chance(probability: float) -> bool:
            return rng.random() < probability * strength

        speed = rng.choice(SPEEDS) if chance(c.speed) else None  # one for the batch: its rows stay of like length
        changed = []
        for cut in cuts:
            if speed:
                cut = cut.perturb_speed(speed, affix_id=False)
            if self.rooms and chance(c.rooms):
                cut = cut.reverb_rir(rng.choice(self.rooms), affix_id=False)
            if chance(c.narrow):
                cut = cut.narrowband("mulaw", affix_id=False)
            if chance(1.0):
                cut = cut.perturb_volume(10 ** (rng.uniform(-c.gain, c.gain) / 20), affix_id=False)
            changed.append(cut)
        if chance(c.join):
            changed = self._join(changed, rng)
        if self.noises:
            changed = [
                cut.mix(self._noise(cut.duration, rng), snr=rng.uniform(c.least_snr, c.most_snr), preserve_id="left")
                if chance(c.noise)
                else cut
                for cut in changed
            ]
            if chance(c.noise_only):
                longest = max(cut.duration for cut in changed)  # a longer row would only pad the others
                noise = self._noise(rng.uniform(0.5, 1.0) * longest, rng)
                changed.append(noise.perturb_volume(10 ** (rng.uniform(-2 * c.gain, c.gain) / 20)))
        return changed

    def _join(self, cuts: list[Any], rng: random.Random) -> list[Any]:
        """2 to 4 utterances in a row become one, as in running speech, with silence between them. One number for the
        batch, so that its rows stay of like length."""
        count = rng.randint(2, 4)
        joined: list[Any] = []
        for number, cut in enumerate(cuts):
            if number % count and joined[-1].duration + cut.duration < MAX_JOIN_S:
                start = joined[-1].duration + rng.uniform(*GAPS_S)
                joined[-1] = joined[-1].mix(cut, offset_other_by=round(start, 3), allow_padding=True)
            else:
                joined.append(cut)
        return joined

    def _noise(self, duration: float, rng: random.Random) -> Any:
        noise = rng.choice(self.noises)
        if noise.duration > duration:
            return noise.truncate(offset=round(rng.uniform(0, noise.duration - duration), 3), duration=duration)
        return noise


class Utterances(Dataset[Batch]):
    """An item is (seed, strength, cuts): what the sampler below yields. Process `rank` of `world` loads its share, and
    a filler where there are fewer utterances than processes."""

    def __init__(self, frontend: Frontend, augment: Augment | None, rank: int, world: int) -> None:
        self.frontend = frontend
        self.augment, self.rank, self.world = augment, rank, world

    def __getitem__(self, item: tuple[int, float, CutSet]) -> Batch:
        seed, strength, cuts = item
        chosen: Sequence[Any] = list(cuts)
        if self.augment and strength > 0:
            chosen = self.augment(chosen, strength, random.Random(seed))
        mels, texts, failed = [], [], []
        for cut in chosen[self.rank :: self.world]:
            try:
                mels.append(self._mel(cut.load_audio()[0]))
                texts.append(" ".join(each.text for each in cut.supervisions if each.text))
            except Exception as error:  # whatever a decoder throws: training goes on without this clip
                names = " + ".join(each.id for each in cut.supervisions if each.text) or cut.id
                failed.append(f"{names}: {' '.join(str(error).split())[:200]}")
        silence = np.zeros(SAMPLE_RATE, np.float32)
        filler = not mels
        if filler:
            mels, texts = [self._mel(silence)], [""]
        lengths = torch.tensor([len(mel) for mel in mels])
        padding = torch.from_numpy(self._mel(silence[:1]))
        batch = padding.repeat(len(mels), int(lengths.max()), 1)
        for row, mel in zip(batch, mels, strict=True):
            row[: len(mel)] = torch.from_numpy(mel)
        return Batch(batch, lengths, texts, failed, filler, self.frontend.seconds_per_frame)

    def _mel(self, samples: np.ndarray) -> np.ndarray:
        """At least one frame."""
        return self.frontend(np.pad(samples, (0, max(0, self.frontend.config.n_fft - len(samples)))))


def batches(
    cuts: CutSet,
    config: DataConfig,
    frontend: Frontend,
    augment: Augment | None,
    strength: Callable[[int], float],
    *,
    epoch: int,
    skip: int,
    first: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """One epoch from its batch `skip` on; `first` is the update that this one is. `strength` tells that of the
    augmentation at an update, from 0 to 1."""

    def items() -> Iterator[tuple[int, float, CutSet]]:
        for update, each in enumerate(islice(plan(cuts, config, epoch, seed), skip, None), first):
            yield hash((seed, update)), strength(update), each

    return iter(
        DataLoader(
            Utterances(frontend, augment, rank, world),
            sampler=items(),
            batch_size=None,  # type: ignore[arg-type]
            num_workers=config.workers,
            worker_init_fn=_in_worker,
            prefetch_factor=4 if config.workers else None,
        )
    )


def _in_worker(worker: int) -> None:
    torch.set_num_threads(1)
    set_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the trainer, which still needs its batches to end well
        signal.signal(number, signal.SIG_IGN)


def load_augment(config: AugmentConfig, data: DataConfig) -> Augment:
    """With the recipe's noise and rooms."""
    from lhotse import Recording

    noise = load_prepared(Path(data.noise), "train") if data.noise else None
    rooms = [Recording.from_file(path) for path in sorted(Path(data.rooms).glob("*.flac"))] if data.rooms else []
    if data.rooms and not rooms:
        raise ManifestError(f"The folder {data.rooms} holds no room impulse responses: give one with .flac files.")
    return Augment(config, noise, rooms)
