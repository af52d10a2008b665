"""Shows how training goes: a progress bar, a line at each evaluation, and TensorBoard curves in the run's folder."""
from __future__ import annotations

import time
from collections import deque

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from asr.training.data import Batch, Speller
from asr.training.gradients import by_distance, by_layer
from asr.training.state import Run
from asr.training.trainer import mels

RECENT = 50                      # updates that the shown loss and speed are of
DISTANCES = (0, 5, 10, 25, 50)   # frames


class Watch:
    """Is told by `train` what happens; of many processes the first one speaks, the others of bad clips only."""

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer_kind = SummaryWriter
        self.console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
        self.bar = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
                            TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal)
        # Of the last updates: loss, seconds of speech in all processes, wall time, seconds spent waiting for the loader
        self.recent: deque[tuple[float, float, float, float]] = deque(maxlen=RECENT)
        self.last = time.perf_counter()

    def start(self, run: Run) -> None:
        self.silent = run.rank > 0
        if self.silent:
            return
        self.writer = self.writer_kind(str(run.folder), purge_step=run.update)
        size = sum(each.numel() for each in run.model.parameters()) / 1e6
        begun = f", going on from update {run.update}" if run.update else ""
        self.console.print(f"{size:.1f} M parameters, {run.updates} updates on {run.world} × {run.device}{begun}; "
                           f"curves: tensorboard --logdir {run.folder}")
        if run.unknown:
            self.console.print(f"The checkpoint that this starts from has no {run.unknown}: left out of the texts.")
        self.task = self.bar.add_task("", total=run.updates, completed=run.update)
        self.bar.start()
        self.last = time.perf_counter()

    def step(self, run: Run, losses: dict[str, float], norm: float, working: float, batch: Batch) -> None:
        """After an update that took `working` seconds; the time since the last one beyond that was the loader's."""
        for failure in batch.failed:
            self.console.print(f"left out {failure}")
        if self.silent:
            return
        now = time.perf_counter()
        wall, self.last = now - self.last, now
        seconds = batch.seconds * run.world
        self.recent.append((sum(losses.values()), seconds, wall, max(0.0, wall - working)))
        loss, speech, walls, waited = (sum(each) for each in zip(*self.recent, strict=True))
        self.bar.update(self.task, completed=run.update, total=run.updates, description=(
            f"epoch {run.epoch} loss {loss / len(self.recent):.3f} {speech / walls:.0f} audio-s/s"))
        if run.update % run.recipe.train.log_every:
            return
        add = self.writer.add_scalar
        for name, value in losses.items():
            add(f"loss/{name}", value, run.update)
        add("learning rate", run.optimizers[0].param_groups[0]["lr"], run.update)
        add("speed/audio-seconds per second", speech / walls, run.update)
        add("speed/share of time waiting for data", waited / walls, run.update)
        add("gradient/norm", norm, run.update)
        clipped = max(1.0, norm / run.recipe.train.clip)
        for name, value in by_layer(run.model).items():
            add(f"gradient by layer/{name}", value * clipped, run.update)
        if not self.console.is_terminal:
            self.console.print(f"{run.update}/{run.updates} epoch {run.epoch} loss {loss / len(self.recent):.3f} "
                               f"gradient {norm:.2f} {speech / walls:.0f} audio-s/s, {waited / walls:.0%} of it "
                               f"waiting for data")

    def scores(self, run: Run, errors: dict[str, float], batch: Batch) -> None:
        """After an evaluation; `batch` is one of dev, for the gradient's reach."""
        if self.silent:
            return
        for name, value in errors.items():
            self.writer.add_scalar(f"dev error/{name}", value, run.update)
        reach = by_distance(run.averaged, *mels(run, batch))
        for distance in DISTANCES:
            if distance < len(reach) and not torch.isnan(reach[distance]):
                self.writer.add_scalar(f"gradient by time distance/{distance} frames", reach[distance], run.update)
        shown = ", ".join(f"{name} {value:.1%}" for name, value in errors.items())
        self.console.print(f"update {run.update}: dev errors, greedy: {shown}")
        self.last = time.perf_counter()  # this was no waiting for data

    def end(self, run: Run, speller: Speller) -> None:
        if self.silent:
            return
        self.bar.stop()
        self.writer.close()
        if run.skipped:
            self.console.print(f"{run.skipped} updates were skipped: their loss was not finite.")
        if run.failed:
            self.console.print(f"{len(run.failed)} clips could not be read and were left out.")
        if words := speller.unpronounced:
            self.console.print(f"{len(words)} words such as '{min(words)}' have no pronunciation and are left out of "
                               f"the phonemes: add them to data.lexicon, or give data.pronunciation.")
        done = run.update >= run.updates
        self.console.print(f"checkpoints: {run.folder / 'last'}, {run.folder / 'best'}" if done else
                           f"stopped at update {run.update}; --resume goes on from there")
