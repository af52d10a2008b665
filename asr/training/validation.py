"""How many errors a model makes on dev while it is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torchaudio.functional as AF

from asr.audio.features import Frontend
from asr.model.tokens import CHARACTERS, TokenSet
from asr.training.data import Batch, TargetEncoder, batches
from asr.training.recipe import Recipe
from asr.training.state import TrainingState

if TYPE_CHECKING:
    from lhotse import CutSet


def read_dev(recipe: Recipe, dev: CutSet, frontend: Frontend) -> list[Batch]:
    """Batches of utterances spread over all of dev, without augmentation."""
    from lhotse import CutSet

    chosen = list(dev)
    wanted = recipe.data.dev_utterances
    chosen = [chosen[i * len(chosen) // wanted] for i in range(wanted)] if wanted < len(chosen) else chosen
    quiet = dataclasses.replace(recipe.data, workers=0, sorted_epochs=1)
    return list(
        batches(CutSet.from_cuts(chosen), quiet, frontend, None, lambda _: 0.0, epoch=0, skip=0, first=0, seed=0)
    )


@torch.no_grad()
def score(state: TrainingState, dev: Sequence[Batch], encoder: TargetEncoder) -> dict[str, float]:
    """Token error rate of each head, and of words spelled in characters: greedy, full context, averaged weights."""
    model = state.averaged.eval()
    errors: dict[str, list[int]] = {name: [0, 0] for name in [*state.tokens, "words"]}
    for batch in dev:
        emissions, frames = model(*state.mel(batch))
        for name, values in emissions.items():
            paths = values.argmax(-1).cpu()
            for path, length, text in zip(paths, frames.cpu(), batch.texts, strict=True):
                heard = [int(token) for token in torch.unique_consecutive(path[:length]) if token]
                said = encoder.targets(text)[name]
                count(errors[name], said, heard)
                if name == CHARACTERS:
                    count(errors["words"], *(words_of(state.tokens[name], each) for each in (said, heard)))
    model.train()
    return {name: wrong / max(1, total) for name, (wrong, total) in errors.items()}


def count(errors: list[int], said: Sequence[Any], heard: Sequence[Any]) -> None:
    errors[0] += AF.edit_distance(said, heard)
    errors[1] += len(said)


def words_of(tokens: TokenSet, path: Sequence[int]) -> list[str]:
    """Words of a path of characters."""
    return "".join(tokens.symbols[token] for token in path).split(tokens.boundary)
