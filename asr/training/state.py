"""A training run between two updates: how it begins, what a checkpoint of it says, how it is saved and resumed.

A run's folder holds

    last.state         everything that going on needs, replaced as a whole
    last/, best/       checkpoints that every command takes: the newest, and the best on dev
    events.*           TensorBoard
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from asr.atomic import replacing
from asr.audio import features
from asr.errors import ManifestError, RecipeError
from asr.model import checkpoint
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import Checkpoint, Config, DecodingConfig, record
from asr.model.export import save_checkpoint
from asr.model.hardware import fast_in_bfloat16
from asr.model.integrity import OPTIONAL
from asr.model.tokens import CHARACTERS, PHONEMES, TokenSet
from asr.training.crf import Denominator, estimate
from asr.training.data import Batch, TargetEncoder, token_sets
from asr.training.muon import Muon
from asr.training.objective import Objective
from asr.training.recipe import Recipe, TrainConfig
from asr.training.resume import reading_state, write_state

if TYPE_CHECKING:
    from lhotse import CutSet

CHECKED_UTTERANCES = 10_000  # whose characters must be the checkpoint's,
MAX_UNKNOWN_SHARE = 0.02  # but for so many; those are left out
SHOWN_CHARACTERS = 20  # of them
STATISTICS_UTTERANCES = 500  # that mean and deviation of the mel bands are of
NUMBERS = ("update", "epoch", "batch", "bad", "skipped", "seconds", "working", "best")  # kept in `last.state`
STATE = "last.state"


@dataclass
class TrainingState:
    """All that a training run carries from update to update."""

    recipe: Recipe
    folder: Path
    device: torch.device
    frontend: features.Frontend
    tokens: dict[str, TokenSet]
    objective: Objective
    average: AveragedModel
    optimizers: list[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    posteriors: dict[str, Tensor]  # running mean over frames, of each head
    start: Checkpoint | None = None  # that it began from,
    unknown: str = ""  # and characters of the texts that it lacks
    planned: int | None = None  # updates that --minutes has room for
    update: int = 0  # done
    epoch: int = 0
    batch: int = 0  # of this epoch, done
    bad: int = 0  # losses in a row that were not finite
    skipped: int = 0  # such losses in all
    seconds: float = 0.0  # of speech trained on
    working: float = 0.0  # seconds of training
    best: float = math.inf
    failed: set[str] = field(default_factory=set)  # clips that could not be read

    @property
    def updates(self) -> int:
        """How many there will be."""
        return self.planned or self.recipe.train.updates

    @property
    def model(self) -> AcousticModel:
        return self.objective.model

    @property
    def averaged(self) -> AcousticModel:
        """The model with the running mean of the weights."""
        return cast("AcousticModel", self.average.module)

    @property
    def rank(self) -> int:
        return int(os.environ.get("RANK", 0))

    @property
    def world(self) -> int:
        return int(os.environ.get("WORLD_SIZE", 1))

    def mel(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A batch's mel frames (B, T, bands), and how many (B,) each utterance has."""
        return batch.mel.to(self.device, non_blocking=True), batch.lengths.to(self.device)


def begin(recipe: Recipe, folder: Path, device: torch.device, cuts: CutSet, init: Path | None) -> TrainingState:
    """A run before its first update."""
    t = recipe.train
    torch.manual_seed(t.seed)
    if t.precision == "auto":
        t = dataclasses.replace(t, precision="bf16" if fast_in_bfloat16(device) else "fp32")
        recipe = dataclasses.replace(recipe, train=t)
    if t.precision not in ("bf16", "fp16", "fp32"):
        raise RecipeError(f"The recipe's train.precision is '{t.precision}': use auto, bf16, fp16 or fp32.")
    if t.precision == "fp16" and device.type == "cpu":
        raise RecipeError("train.precision fp16 needs a GPU: use bf16 or fp32 on the CPU.")
    start, unknown = None if init is None else checkpoint.load(init), ""
    if start is not None:
        recipe = continued(recipe, start)
        unknown = unknown_characters(cuts, start.config.tokens[CHARACTERS])
        tokens, frontend, model = start.config.tokens, start.frontend, start.torch_model().requires_grad_(True)
    else:
        tokens = token_sets(cuts, recipe.data)
        try:
            frontend = features.build(recipe.frontend)
            model = AcousticModel(recipe.model, frontend.bands, {name: len(each) for name, each in tokens.items()})
        except ValueError as error:
            raise RecipeError(f"The recipe's model cannot be built: {error}.") from error
        measure_bands(model, frontend, cuts)
    for layer in model.encoder():
        layer.dropout.p = t.dropout
    objective = Objective(model, t.middle, *denominator(recipe, cuts, tokens), t.consistency).to(device).train()
    folder.mkdir(parents=True, exist_ok=True)
    return TrainingState(
        recipe,
        folder,
        device,
        frontend,
        tokens,
        objective,
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(t.averaging)),
        optimizers(objective, t),
        torch.amp.GradScaler(device.type, enabled=t.precision == "fp16"),
        {name: torch.zeros(len(each), device=device) for name, each in tokens.items()},
        start,
        unknown,
    )


def optimizers(objective: Objective, t: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between hidden layers, AdamW (Loshchilov & Hutter 2019) for the rest."""
    body = [each for each in objective.model.layers.parameters() if each.ndim == 2]
    others = [each for each in objective.parameters() if not any(each is matrix for matrix in body)]
    return [
        Muon(body, t.learning_rate, t.weight_decay),
        torch.optim.AdamW(
            [
                {"params": [each for each in others if each.ndim > 1], "weight_decay": t.weight_decay},
                {"params": [each for each in others if each.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=t.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        ),
    ]


def continued(recipe: Recipe, start: Checkpoint) -> Recipe:
    """The recipe with what a checkpoint that training starts from has decided already, and with its lexicon where the
    recipe has none."""
    data = recipe.data
    if not data.lexicon and PHONEMES in start.config.tokens:
        lexicon, network = start.optional("lexicon.txt"), start.optional("pronunciation.safetensors")
        data = dataclasses.replace(
            data, lexicon=str(lexicon or ""), pronunciation=data.pronunciation or str(network or "")
        )
    return dataclasses.replace(
        recipe,
        data=data,
        frontend=start.config.frontend,
        model=start.config.model,
        language=recipe.language or start.config.language,
        licence=recipe.licence or start.config.licence,
    )


def unknown_characters(cuts: CutSet, tokens: TokenSet) -> str:
    """Those of the texts that the checkpoint lacks which training starts from, the most frequent ones. Raises
    RecipeError where it is of another alphabet."""
    counts = Counter(character for cut in islice(cuts, CHECKED_UTTERANCES) for character in cut.supervisions[0].text)
    unknown = Counter({each: count for each, count in counts.items() if each != " " and each not in tokens.symbols})
    shown = " ".join(each for each, _ in unknown.most_common(SHOWN_CHARACTERS))
    if unknown.total() > MAX_UNKNOWN_SHARE * counts.total():
        raise RecipeError(
            f"The checkpoint given by --init has no {shown}; characters that it lacks make "
            f"{unknown.total() / counts.total():.0%} of the texts: train without --init."
        )
    return shown


def denominator(recipe: Recipe, cuts: CutSet, tokens: dict[str, TokenSet]) -> tuple[float, str, Denominator | None]:
    """The CTC-CRF's weight, head and denominator, its n-gram estimated on the training texts."""
    t = recipe.train
    head = PHONEMES if PHONEMES in tokens else CHARACTERS
    if not t.crf:
        return 0.0, head, None
    encoder = TargetEncoder({head: tokens[head]}, recipe.data)
    sequences = (encoder.targets(cut.supervisions[0].text)[head] for cut in cuts)
    return t.crf, head, Denominator(estimate(sequences, len(tokens[head]), t.crf_order))


@torch.no_grad()
def measure_bands(model: AcousticModel, frontend: features.Frontend, cuts: CutSet) -> None:
    """Mean and deviation of every mel band, over a sample of the training data."""
    total, squares, count = np.zeros(frontend.bands), np.zeros(frontend.bands), 0
    every = max(1, len(cuts) // STATISTICS_UTTERANCES) if not cuts.is_lazy else 1
    for number, cut in enumerate(cuts):
        if number >= every * STATISTICS_UTTERANCES:
            break
        if number % every == 0:
            try:
                mel = frontend(cut.load_audio()[0]).astype(np.float64)
            except Exception:  # its batch will name it
                continue
            total, squares, count = total + mel.sum(0), squares + np.square(mel).sum(0), count + len(mel)
    if not count:
        raise ManifestError("No utterance of the training data can be read: prepare it again with `asr prepare`.")
    mean = total / count
    model.mel_mean.copy_(torch.from_numpy(mean))
    model.mel_std.copy_(torch.from_numpy(np.sqrt(np.maximum(squares / count - mean**2, 1e-4))))


def config_of(state: TrainingState) -> Config:
    """What the checkpoint says of itself; priors are the running mean of posteriors."""
    tokens = dict(state.tokens)
    for name, mean in state.posteriors.items():
        if mean.any():
            priors = tuple(round(max(float(prior), 1e-8), 8) for prior in mean / mean.sum())
            tokens[name] = dataclasses.replace(tokens[name], priors=priors)
    r = state.recipe
    decoding = state.start.config.decoding if state.start else DecodingConfig()
    return Config(
        r.name,
        r.language or "en",
        r.licence or "unknown",
        r.frontend,
        r.model,
        tokens,
        decoding,
        training={
            "updates": state.update,
            "hours_of_speech_heard": round(state.seconds / 3600, 1),
            "hours_of_work": round(state.working / 3600, 2),
            "recipe": dataclasses.asdict(r),
        },
    )


def keep(state: TrainingState, errors: Mapping[str, float]) -> None:
    """Write the averaged weights as `last`, and as `best` if no earlier ones made fewer errors; what the checkpoint
    that the run began from has beside its weights goes with them."""
    if state.rank:
        return
    error = errors[PHONEMES if PHONEMES in errors else CHARACTERS]
    names = ["last", "best"] if error <= state.best else ["last"]
    state.best = min(error, state.best)
    for name in names:
        save_checkpoint(state.folder / name, config_of(state), state.averaged.weights())
        for optional in OPTIONAL if state.start else ():
            source = state.start.optional(optional) if state.start else None
            if source and not (state.folder / name / optional).exists():
                with replacing(state.folder / name / optional) as part:
                    shutil.copyfile(source, part)
                record(state.folder / name, optional)


def save_state(state: TrainingState) -> None:
    """Replace `last.state`: a killed process leaves the old one or the new one, never half of one."""
    if state.rank:
        return
    write_state(
        state.folder / STATE,
        {
            "objective": state.objective.state_dict(),
            "average": state.average.state_dict(),
            "optimizers": [each.state_dict() for each in state.optimizers],
            "scaler": state.scaler.state_dict(),
            "posteriors": state.posteriors,
            "planned": state.planned,
            "failed": sorted(state.failed),
            "symbols": symbols(state),
            "numbers": {name: getattr(state, name) for name in NUMBERS},
        },
    )


def restore(state: TrainingState) -> None:
    """Go on from `last.state`. Raises TrainingError where there is none, or it is of another recipe."""
    with reading_state(
        state.folder / STATE,
        state.device,
        "give the recipe and the --init that it was begun with, or start in another folder.",
    ) as saved:
        if saved.get("symbols") not in (None, symbols(state)):
            raise ValueError("other tokens")  # without --init they may be as many, in another order
        state.objective.load_state_dict(saved["objective"])
        state.average.load_state_dict(saved["average"])
        for optimizer, kept in zip(state.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        state.scaler.load_state_dict(saved["scaler"])
        state.posteriors, state.planned = saved["posteriors"], saved["planned"]
        state.failed = set(saved.get("failed", ()))
        for name, value in saved["numbers"].items():
            setattr(state, name, value)


def symbols(state: TrainingState) -> dict[str, list[str]]:
    return {name: list(each.symbols) for name, each in state.tokens.items()}
