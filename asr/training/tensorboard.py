"""TensorBoard curves of a training, in its folder."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from asr.training.data import Batch, TargetEncoder
from asr.training.gradients import by_distance, by_layer
from asr.training.observer import Observer, Step
from asr.training.state import TrainingState

DISTANCES_FRAMES = (0, 5, 10, 25, 50)


class TensorBoard(Observer):
    """Losses, learning rate, speed, gradients and errors on dev; written by the first process alone."""

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a missing package is reported before the training begins

        self.writer_class = SummaryWriter

    def start(self, state: TrainingState) -> None:
        self.silent = state.rank > 0
        if not self.silent:
            self.writer = self.writer_class(str(state.folder), purge_step=state.update)

    def step(self, state: TrainingState, step: Step) -> None:
        if self.silent or state.update % state.recipe.train.log_every:
            return
        curves = {f"loss/{name}": value for name, value in step.losses.items()}
        curves |= {
            "learning rate": state.optimizers[0].param_groups[0]["lr"],
            "speed/audio-seconds per second": step.pace.speech_rate,
            "speed/share of time waiting for data": step.pace.waiting,
            "gradient/norm": step.norm,
        }
        clipped = max(1.0, step.norm / state.recipe.train.clip)
        curves |= {f"gradient by layer/{name}": value * clipped for name, value in by_layer(state.model).items()}
        self._add(curves, state.update)

    def scores(self, state: TrainingState, errors: Mapping[str, float], batch: Batch) -> None:
        if self.silent:
            return
        curves = {f"dev error/{name}": value for name, value in errors.items()}
        reach = by_distance(state.averaged, *state.mel(batch))
        curves |= {
            f"gradient by time distance/{distance} frames": float(reach[distance])
            for distance in DISTANCES_FRAMES
            if distance < len(reach) and not torch.isnan(reach[distance])
        }
        self._add(curves, state.update)

    def end(self, state: TrainingState, encoder: TargetEncoder) -> None:
        if not self.silent:
            self.writer.close()

    def _add(self, curves: Mapping[str, float], update: int) -> None:
        for name, value in curves.items():
            self.writer.add_scalar(name, value, update)
