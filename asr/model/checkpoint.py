"""A checkpoint is a folder that anyone can read: JSON for what it is, safetensors for the weights. No pickle, ever.

config.json                 frontend, model, token sets with their priors, decoding defaults, facts of the training
model.safetensors           weights in fp16; mean and deviation of the mel bands
lexicon.txt                 word TAB phonemes, optional
ngram.safetensors           packed n-gram language model, optional
lexicon.safetensors         prefix tree of the lexicon, optional: built on loading where it is missing
neural_lm.safetensors       LSTM language model that judges final text once more, optional
pronunciation.safetensors   letter-to-sound network for words that the lexicon lacks, optional
punctuation.safetensors     tagger that writes words as sentences, optional
MODEL_CARD.md               data, licences, accuracy, limits
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from asr.atomic import replacing
from asr.audio import features
from asr.audio.features import Frontend, FrontendConfig
from asr.errors import CheckpointError
from asr.model.acoustic import AcousticModel
from asr.model.streaming import ModelConfig
from asr.model.tokens import CHARACTERS, TokenSet
from asr.schema import SchemaError, build, check_range

FORMAT = 1
DEFAULT = "en-small"
OPTIONAL = (
    "lexicon.txt",
    "lexicon.safetensors",
    "ngram.safetensors",
    "neural_lm.safetensors",
    "pronunciation.safetensors",
    "punctuation.safetensors",
)


@dataclass(frozen=True)
class DecodingConfig:
    """Defaults of the decoder, found by `asr tune`. Scores are natural logarithms."""

    lm_weight: float = 2.0
    word_score: float = 0.0
    prior_scale: float = 0.6  # α: how much of log p̄(token) is divided out
    beam: int = 800
    beam_tokens: int = 12
    beam_threshold: float = 12.0  # a path this much worse than the best is given up
    nbest: int = 10  # sentences of an utterance that the neural language model judges, where there is one,
    neural_weight: float = 0.5  # and its share of lm_weight; the rest is the n-gram's
    hotword_bonus: float = 8.0
    margin: float = 5.5  # by which a sentence must beat silence, for each of its words; noise seldom does
    # What a CTC spike's time says of a word's: seconds to add to its first token's start and its last token's end.
    start_offset: float = 0.0
    end_offset: float = 0.0
    # Logistic regression from `confidence.features` to the probability that a word is right; the last is the bias.
    lm_confidence: tuple[float, ...] = ()
    greedy_confidence: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.lm_weight <= 0:
            raise ValueError("lm_weight must be greater than 0")
        check_range(self, 0, 1, "neural_weight")
        check_range(self, 1, math.inf, "beam", "beam_tokens", "nbest")


@dataclass(frozen=True)
class Config:
    name: str
    language: str
    licence: str
    frontend: FrontendConfig
    model: ModelConfig
    tokens: dict[str, TokenSet]
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    training: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        if CHARACTERS not in self.tokens:
            raise ValueError(f"'tokens' lacks '{CHARACTERS}', which every model has")


@dataclass
class Checkpoint:
    """Everything of a checkpoint that is shared and never changes while it is used."""

    path: Path
    config: Config
    frontend: Frontend
    model: AcousticModel

    @property
    def seconds_per_frame(self) -> float:
        return self.frontend.seconds_per_frame * self.config.model.subsampling

    def optional(self, name: str) -> Path | None:
        """The path of an optional file, or None where the checkpoint does not have it."""
        path = self.path / name
        return path if path.is_file() else None


def find(name: str | os.PathLike[str] | None = None) -> Path:
    """A folder, or the name of a checkpoint that the package carries. Raises CheckpointError where there is none."""
    name = DEFAULT if name is None else name
    here = Path(__file__).parents[1]  # the package, which carries the shipped one when it is installed
    candidates = [Path(name).expanduser(), here / "checkpoints" / name, here.parent / "checkpoints" / name]
    for path in candidates:
        if (path / "config.json").is_file():
            return path
    if candidates[0].exists():
        raise CheckpointError(f"'{name}' is not a checkpoint: it has no config.json; give the folder that holds it.")
    raise CheckpointError(f"There is no checkpoint '{name}': give a folder, or '{DEFAULT}' for the shipped one.")


def beside(folder: Path, name: str | None) -> Path:
    """The checkpoint that is named, else the one in the folder, else the shipped one. Raises CheckpointError."""
    return folder if name is None and (folder / "config.json").is_file() else find(name)


def load(name: str | os.PathLike[str] | None = None, device: str = "cpu") -> Checkpoint:
    """Read and check a checkpoint folder. Raises CheckpointError, naming what is wrong."""
    path = find(name)
    config = read_config(path / "config.json")
    try:
        frontend = features.build(config.frontend)
        model = AcousticModel(config.model, frontend.bands, {k: len(v) for k, v in config.tokens.items()})
        frontend(torch.zeros(config.frontend.n_fft))  # what cannot run together fails here
    except (ValueError, TypeError, RuntimeError, KeyError) as error:  # KeyError: a head's name that no module can have
        raise CheckpointError(f"{path / 'config.json'}: {' '.join(str(error).split())}.") from error
    weights = path / "model.safetensors"
    try:
        tensors = load_file(weights)
    except FileNotFoundError as error:
        raise CheckpointError(f"{weights} is missing: copy the whole checkpoint folder.") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{weights} is truncated or not a safetensors file: copy it again ({error}).") from error
    expected = model.state_dict()
    for key, tensor in expected.items():
        if key not in tensors:
            raise CheckpointError(f"{weights} has no tensor '{key}', which config.json asks for.")
        if tensors[key].shape != tensor.shape:
            raise CheckpointError(
                f"{weights}: tensor '{key}' has shape {tuple(tensors[key].shape)}, "
                f"config.json asks for {tuple(tensor.shape)}."
            )
        if not torch.isfinite(tensors[key]).all():
            raise CheckpointError(f"{weights}: tensor '{key}' holds NaN or infinite values: the training diverged.")
    if unknown := sorted(set(tensors) - set(expected)):
        raise CheckpointError(f"{weights} has a tensor '{unknown[0]}' that config.json does not ask for.")
    if not (tensors["mel_std"] > 0).all():
        raise CheckpointError(f"{weights}: 'mel_std' must be positive in every band.")
    model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    model.eval().requires_grad_(False)
    return Checkpoint(path, config, frontend, model.to(device))


def save(path: Path, config: Config, model: AcousticModel) -> None:
    """Write `config.json` and `model.safetensors` (fp16); each file appears whole or not at all."""
    weights = {name for name, _ in model.named_parameters()}  # the bands' statistics stay in full precision
    tensors = {
        name: (value.half() if name in weights else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    with replacing(path / "model.safetensors") as part:
        save_file(tensors, part)
    write_config(path / "config.json", config)


def write_config(path: Path, config: Config) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(dataclasses.asdict(config), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_config(path: Path) -> Config:
    """Every key is known and of the right kind, or CheckpointError names the one that is not."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: copy it again ({error}).") from error
    if isinstance(data, dict) and data.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {data.get('format')!r:.60} is not {FORMAT}, the one this version reads.")
    try:
        return build(Config, data)
    except SchemaError as error:
        raise CheckpointError(f"{path}: {error}; correct it, or use the version that wrote it.") from error
