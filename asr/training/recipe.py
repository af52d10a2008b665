"""What a training run is told: a TOML file, with `key=value` changes from the command line. Unknown keys are errors."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.audio.features import FrontendConfig
from asr.errors import RecipeError
from asr.model.streaming import ModelConfig
from asr.schema import SchemaError, build, check_range

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class DataConfig:
    """Prepared folders (see `asr.training.prepare`), and what a batch is."""

    train: tuple[str, ...]
    dev: tuple[str, ...]
    noise: str = ""  # a prepared folder of recordings without speech; "" for none
    rooms: str = ""  # a folder of room impulse responses; "" for none
    lexicon: str = ""  # word TAB phonemes: with it the model has a phoneme head
    pronunciation: str = ""  # letter-to-sound network for words that the lexicon lacks
    batch_seconds: float = 64.0  # of speech in one update, over all processes and accumulated parts
    workers: int = 1  # loader processes
    sorted_epochs: int = 1  # this many first epochs go from short utterances to long ones
    cached: bool = False  # train on log-mels that are computed once (`feature_cache`)
    weights: dict[str, float] = field(default_factory=dict)  # corpus → times an epoch takes a clip of it (cached only)
    dev_utterances: int = 400  # that scores during training are of, spread over all

    def __post_init__(self) -> None:
        check_range(self, 1e-3, math.inf, "batch_seconds")
        check_range(self, 0, math.inf, "workers", "sorted_epochs")
        check_range(self, 1, math.inf, "dev_utterances")
        if wrong := [corpus for corpus, weight in self.weights.items() if weight < 0]:
            raise ValueError(f"weights must be 0 or more, which that of {wrong[0]} is not")


@dataclass(frozen=True)
class AugmentConfig:
    """Chances are per utterance unless they say otherwise, and reached after `ramp` of the training."""

    ramp: float = 0.2
    speed: float = 0.6  # chance, per batch, of 0.9 or 1.1 times the speed (Ko et al. 2015)
    noise: float = 0.4
    least_snr: float = 5.0  # dB
    most_snr: float = 30.0
    rooms: float = 0.2
    gain: float = 12.0  # dB up or down at most
    response: float = 0.0  # dB up or down at most, of a random microphone's response (cached features only)
    narrow: float = 0.1  # chance of sounding as through a telephone (8 kHz, μ-law)
    join: float = 0.2  # chance, per batch, that its short utterances are joined in groups
    noise_only: float = 0.3  # chance, per batch, of one more row that is noise without any words
    vocal_tract: float = 0.0  # longest change of the vocal tract's length, as a share of it
    time_masks: int = 2  # SpecAugment (Park et al. 2019), policy without warping
    time_mask: int = 30  # mel frames at most
    band_masks: int = 2
    band_mask: int = 15  # mel bands at most

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "ramp", "speed", "noise", "rooms", "narrow", "join", "noise_only")
        check_range(self, 0, 0.5, "vocal_tract")
        check_range(self, 0, math.inf, "gain", "response", "time_masks", "time_mask", "band_masks", "band_mask")
        check_range(self, self.least_snr, math.inf, "most_snr")


@dataclass(frozen=True)
class TrainConfig:
    updates: int = 10_000
    learning_rate: float = 1.5e-3
    warmup: int = 300  # updates
    hold: float = 0.4  # of the training at the peak, before the cosine
    final: float = 0.01  # of the peak, at the end
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradient
    dropout: float = 0.1
    accumulate: int = 1  # parts that an update's batch is cut into, for little memory
    averaging: float = 0.999  # decay of the running mean of the weights, which is what is kept
    middle: float = 0.3  # weight of the middle layer's CTC losses
    full: float = 0.5  # share of batches with full context; the others are latency-controlled
    crf: float = 0.0  # weight of the CTC-CRF denominator on the phoneme head
    crf_order: int = 2  # of its n-gram
    crf_after: float = 0.5  # of the training: it needs a model that knows the tokens
    consistency: float = 0.0  # weight of CR-CTC's loss: two masked views of each batch must agree; twice the work
    precision: str = "auto"  # bf16 | fp16 (GPU) | fp32 | auto: bf16 where the device is fast in it, else fp32
    seed: int = 0
    evaluate_every: int = 1000  # updates
    save_every: int = 250
    log_every: int = 50

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "updates", "accumulate", "evaluate_every", "save_every", "log_every")
        check_range(self, 0, 1, "hold", "final", "averaging", "full", "crf_after")
        check_range(self, 0, 0.99, "dropout")
        check_range(self, 0, math.inf, "learning_rate", "warmup", "weight_decay", "middle", "crf", "consistency")
        check_range(self, 1e-6, math.inf, "clip")
        check_range(self, 2, 3, "crf_order")


@dataclass(frozen=True)
class Recipe:
    name: str
    data: DataConfig
    language: str = ""  # of the texts; "en", or that of the checkpoint which training starts from
    licence: str = ""  # of the weights; "unknown", or that of the checkpoint
    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def read(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """A TOML file, with changes such as `train.updates=500` or `data.train=["a", "b"]` on top.

    Paths in `data` are relative to the working directory. Raises RecipeError that names the key.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"The recipe {path} cannot be read ({error}); give a TOML file.") from error
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise RecipeError(f"'{change}' is not a change: write key=value, such as train.updates=500.")
        *sections, last = key.strip().split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise RecipeError(f"'{key}': {section} is a value, not a section of the recipe.")
        place[last] = _value(text)
    try:
        return build(Recipe, values)
    except SchemaError as error:
        raise RecipeError(f"The recipe {path}: {error}.") from error


def _value(text: str) -> Any:
    """As TOML reads it; bare words are texts, so that quotes need no escaping in a shell."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
