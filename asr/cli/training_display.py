"""How a training goes, on the terminal: a progress bar, a line at each evaluation, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from asr.training.data import Batch, TargetEncoder
from asr.training.observer import Observer, Step
from asr.training.state import TrainingState


class TrainingDisplay(Observer):
    """On stderr. Of many processes the first one speaks; the others report only clips that cannot be read."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def start(self, state: TrainingState) -> None:
        self.silent = state.rank > 0
        if self.silent:
            return
        millions = sum(each.numel() for each in state.model.parameters()) / 1e6
        begun = f", going on from update {state.update}" if state.update else ""
        self.console.print(
            f"{millions:.1f} M parameters, {state.updates} updates on {state.world} × {state.device}"
            f"{begun}; curves: tensorboard --logdir {state.folder}"
        )
        if state.unknown:
            self.console.print(f"The checkpoint that this starts from has no {state.unknown}: left out of the texts.")
        self.task = self.bar.add_task("", total=state.updates, completed=state.update)
        self.bar.start()

    def step(self, state: TrainingState, step: Step) -> None:
        for failure in step.batch.failed:
            self.console.print(f"left out {failure}")
        if self.silent:
            return
        pace = step.pace
        self.bar.update(
            self.task,
            completed=state.update,
            total=state.updates,
            description=(f"epoch {state.epoch} loss {pace.loss:.3f} {pace.speech_rate:.0f} audio-s/s"),
        )
        if state.update % state.recipe.train.log_every == 0 and not self.console.is_terminal:
            self.console.print(
                f"{state.update}/{state.updates} epoch {state.epoch} loss {pace.loss:.3f} gradient "
                f"{step.norm:.2f} {pace.speech_rate:.0f} audio-s/s, {pace.waiting:.0%} of it waiting "
                f"for data"
            )

    def scores(self, state: TrainingState, errors: Mapping[str, float], batch: Batch) -> None:
        if not self.silent:
            shown = ", ".join(f"{name} {value:.1%}" for name, value in errors.items())
            self.console.print(f"update {state.update}: dev errors, greedy: {shown}")

    def end(self, state: TrainingState, encoder: TargetEncoder) -> None:
        if self.silent:
            return
        self.bar.stop()
        if state.skipped:
            self.console.print(f"{state.skipped} updates were skipped: their loss was not finite.")
        if state.failed:
            self.console.print(f"{len(state.failed)} clips could not be read and were left out.")
        if words := encoder.unpronounced:
            self.console.print(
                f"{len(words)} words such as '{min(words)}' have no pronunciation and are left out of "
                f"the phonemes: add them to data.lexicon, or give data.pronunciation."
            )
        done = state.update >= state.updates
        self.console.print(
            f"checkpoints: {state.folder / 'last'}, {state.folder / 'best'}"
            if done
            else f"stopped at update {state.update}; --resume goes on from there"
        )
