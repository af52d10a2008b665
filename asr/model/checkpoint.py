"""A checkpoint is a folder that anyone can read: JSON for what it is, safetensors for the weights. No pickle, ever.

config.json                 frontend, model, token sets with their priors, decoding defaults, facts of the training;
                            size and SHA-256 of every file (`integrity`)
model.safetensors           weights in fp16; mean and deviation of the mel bands
stem.onnx, encoder.onnx     graphs without weights (`graphs`); made where they are missing and onnx is installed
encoder-int8.onnx           the same for 8-bit weights, of LSTMs
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
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from asr.atomic import replacing
from asr.audio import features
from asr.audio.features import Frontend, FrontendConfig
from asr.errors import CheckpointError
from asr.model import integrity
from asr.model.integrity import CONFIG, FILES, WEIGHTS, FileFacts
from asr.model.streaming import STRIDES, ModelConfig
from asr.model.tokens import CHARACTERS, TokenSet
from asr.schema import SchemaError, build, check_range

if TYPE_CHECKING:
    from asr.model.acoustic import AcousticModel

Arrays = Mapping[str, np.ndarray]

FORMAT = 1
STATISTICS = ("mel_mean", "mel_std")  # of the mel bands; they stay in full precision
GATES = {"rnn": 1, "gru": 3, "lstm": 4}  # of each cell
DEFAULT = "en-small"


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
    neural_weight: float = 0.5  # and its share of a word's probability; the rest is the n-gram's
    hotword_bonus: float = 8.0
    margin: float = 5.5  # by which a sentence must beat silence, for each of its words; noise seldom does
    # What a CTC spike's time says of a word's: seconds to add to its first token's start and its last token's end.
    start_offset: float = 0.0
    end_offset: float = 0.0
    # Logistic regression from `confidence.features` to the probability that a word is right; the last is the bias.
    lm_confidence: tuple[float, ...] = ()
    greedy_confidence: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("lm_weight", "beam_threshold"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than 0")
        check_range(self, 0, math.inf, "prior_scale", "hotword_bonus")
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
    files: dict[str, FileFacts] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in self.files:
            if name not in FILES:
                raise ValueError(f"'files' lists '{name:.60}', which is no file of a checkpoint")
        if CHARACTERS not in self.tokens:
            raise ValueError(f"'tokens' lacks '{CHARACTERS}', which every model has")
        for name in self.tokens:
            if not name.isidentifier() or hasattr(dict, name):
                raise ValueError(f"'{name}' cannot be the name of a token set: take letters and _")


@dataclass(frozen=True)
class Checkpoint:
    """Everything of a checkpoint that is shared and never changes while it is used; `stored` are its weights as the
    file has them. Where they were let go, they are read again for whoever asks."""

    path: Path
    config: Config
    frontend: Frontend
    stored: Arrays

    @property
    def mel_mean(self) -> np.ndarray:
        """(bands,) float32, of the mel frames that the model was trained on."""
        return self._read()["mel_mean"].astype(np.float32)

    @property
    def mel_std(self) -> np.ndarray:
        """(bands,) float32, all positive."""
        return self._read()["mel_std"].astype(np.float32)

    @property
    def size(self) -> int:
        """How many weights the model has."""
        heads = {name: len(tokens) for name, tokens in self.config.tokens.items()}
        return sum(map(math.prod, shapes(self.config.model, self.frontend.bands, heads).values()))

    @property
    def seconds_per_frame(self) -> float:
        return self.frontend.seconds_per_frame * self.config.model.subsampling

    def weights(self) -> dict[str, np.ndarray]:
        """All of them in float32, with the names of `AcousticModel`. Raises CheckpointError where they have to be read
        again and are damaged."""
        return {name: values.astype(np.float32) for name, values in self._read().items()}

    def without_weights(self) -> Checkpoint:
        """The same for whoever has made a model of it, which has weights of its own."""
        return dataclasses.replace(self, stored={})

    def _read(self) -> Arrays:
        return self.stored or load(self.path).stored

    def graph(self, name: str) -> bytes | None:
        """One of the ONNX graphs, which have no weights; None where the checkpoint does not have it."""
        path = self.optional(name)
        return path.read_bytes() if path else None

    def torch_model(self, device: str = "cpu") -> AcousticModel:
        """The model in PyTorch, which the extra [train] installs. Raises CheckpointError for a head's name that no
        module can have."""
        import torch

        from asr.model.acoustic import AcousticModel

        tokens = {name: len(each) for name, each in self.config.tokens.items()}
        try:
            model = AcousticModel(self.config.model, self.frontend.bands, tokens)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{self.path / 'config.json'}: {' '.join(str(error).split())}.") from error
        model.load_state_dict({name: torch.from_numpy(values) for name, values in self.weights().items()})
        return model.eval().requires_grad_(False).to(device)

    def optional(self, name: str) -> Path | None:
        """The path of an optional file, or None where the checkpoint does not have it."""
        path = self.path / name
        return path if path.is_file() else None


def installed_folder() -> Path:
    """Where checkpoints are that users install, there or not: rill/checkpoints of their data folder, which is
    XDG_DATA_HOME or the system's."""
    system = {"win32": os.environ.get("LOCALAPPDATA", "~\\AppData\\Local"), "darwin": "~/Library/Application Support"}
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser(system.get(sys.platform, "~/.local/share"))
    return Path(data) / "rill" / "checkpoints"


def find(name: str | os.PathLike[str] | None = None) -> Path:
    """A folder, or the name of a checkpoint that the package carries or a user has installed. Raises CheckpointError
    where there is none."""
    name = DEFAULT if name is None else name
    here = Path(__file__).parents[1]  # the package, which carries the shipped one when it is installed
    shelves = (here / "checkpoints", here.parent / "checkpoints", installed_folder())
    candidates = [Path(name).expanduser(), *(shelf / name for shelf in shelves)]
    for path in candidates:
        if (path / "config.json").is_file():
            return path
    if candidates[0].exists():
        raise CheckpointError(f"'{name}' is not a checkpoint: it has no config.json; give the folder that holds it.")
    raise CheckpointError(f"There is no checkpoint '{name}': give a folder, or a name that `asr models` lists.")


def beside(folder: Path, name: str | None) -> Path:
    """The checkpoint that is named, else the one in the folder, else the shipped one. Raises CheckpointError."""
    return folder if name is None and (folder / "config.json").is_file() else find(name)


def load(name: str | os.PathLike[str] | None = None) -> Checkpoint:
    """Read and check a checkpoint folder. Raises CheckpointError, naming what is wrong; warns with CheckpointWarning of
    a text that is not as config.json lists it."""
    path = find(name)
    config = read_config(path / CONFIG)
    integrity.check(path, config.files)
    try:
        frontend = features.build(config.frontend)
        expected = shapes(config.model, frontend.bands, {name: len(each) for name, each in config.tokens.items()})
        frontend.stream().accept(np.zeros(config.frontend.n_fft, np.float32))  # what cannot run together fails here
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path / 'config.json'}: {' '.join(str(error).split())}.") from error
    weights = path / WEIGHTS
    try:
        stored = load_file(weights)
    except FileNotFoundError as error:
        raise CheckpointError(f"{weights} is missing: copy the whole checkpoint folder.") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{weights} is truncated or not a safetensors file: copy it again ({error}).") from error
    for key, shape in expected.items():
        if key not in stored:
            raise CheckpointError(f"{weights} has no tensor '{key}', which config.json asks for.")
        if stored[key].shape != shape:
            raise CheckpointError(
                f"{weights}: tensor '{key}' has shape {stored[key].shape}, config.json asks for {shape}."
            )
        if not np.isfinite(stored[key]).all():
            raise CheckpointError(f"{weights}: tensor '{key}' holds NaN or infinite values: the training diverged.")
    if unknown := sorted(set(stored) - set(expected)):
        raise CheckpointError(f"{weights} has a tensor '{unknown[0]}' that config.json does not ask for.")
    if not (stored["mel_std"] > 0).all():
        raise CheckpointError(f"{weights}: 'mel_std' must be positive in every band.")
    return Checkpoint(path, config, frontend, stored)


def shapes(config: ModelConfig, bands: int, heads: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Of every weight of `AcousticModel`. Raises ValueError for a cell or a subsampling that does not exist."""
    if config.cell not in GATES:
        raise ValueError(f"unknown cell '{config.cell}': choose one of {', '.join(GATES)}")
    if config.subsampling not in STRIDES:
        raise ValueError(f"subsampling {config.subsampling} is not available: choose one of {list(STRIDES)}")
    h, channels, gates = config.hidden, config.stem_channels, GATES[config.cell] * config.hidden
    found: dict[str, tuple[int, ...]] = {"mel_mean": (bands,), "mel_std": (bands,)}

    def linear(name: str, inputs: int, outputs: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs), (outputs,)

    for name, inputs in (("stem.conv1", 1), ("stem.conv2", channels)):
        found[f"{name}.weight"], found[f"{name}.bias"] = (channels, inputs, 3, 3), (channels,)
    linear("stem.linear", channels * -(-bands // 4), h)
    norms = ["norm"]
    for layer in (f"layers.{i}" for i in range(config.layers)):
        norms.append(f"{layer}.norm")
        for rnn in (f"{layer}.forward_rnn", f"{layer}.backward_rnn"):
            found |= {f"{rnn}.weight_{side}_l0": (gates, h) for side in ("ih", "hh")}
            found |= {f"{rnn}.bias_{side}_l0": (gates,) for side in ("ih", "hh")}
        linear(f"{layer}.proj", 2 * h, h)
    for norm in norms:
        found[f"{norm}.weight"] = found[f"{norm}.bias"] = (h,)
    for name, tokens in heads.items():
        linear(f"heads.{name}", h, tokens)
    return found


def save(path: Path, config: Config, weights: Arrays) -> None:
    """Write `model.safetensors` (fp16) and `config.json`, which goes on listing the other files of the folder; each
    file appears whole or not at all."""
    stored = {
        name: np.ascontiguousarray(values, np.float32 if name in STATISTICS else np.float16)
        for name, values in weights.items()
    }
    try:
        others = read_config(path / CONFIG).files
    except CheckpointError:
        others = {}
    with replacing(path / WEIGHTS) as part:
        save_file(stored, part)
    write_config(
        path / CONFIG, dataclasses.replace(config, files=others | {WEIGHTS: integrity.measure(path / WEIGHTS)})
    )


def record(folder: Path, *names: str) -> None:
    """Renew what `config.json` says of files of its folder that were just written; of all its files, where none is
    named. A folder without a `config.json` that can be read is no checkpoint, and stays as it is."""
    try:
        config = read_config(folder / CONFIG)
    except CheckpointError:
        return
    kept = config.files if names else {}
    found = {name: integrity.measure(folder / name) for name in names or FILES if (folder / name).is_file()}
    write_config(folder / CONFIG, dataclasses.replace(config, files=kept | found))


def write_config(path: Path, config: Config) -> None:
    """Whole or not at all, with its own size and SHA-256."""
    data = dataclasses.asdict(config)
    data["files"][CONFIG] = dataclasses.asdict(integrity.measure_config(data))
    with replacing(path) as part:
        part.write_bytes(integrity.to_json(data))


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
