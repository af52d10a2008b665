"""Training, from top to bottom: prepared data in, a checkpoint out.

    recipe → cuts → batches → mel → objective → gradient → weights → running mean of the weights → checkpoint

`train` is the loop; each thing that it does is a function below it, in the order of its use. Everything counts in
updates: a slow machine takes longer and trains as well. Many processes: `torchrun --nproc-per-node 2 -m asr.cli train
RECIPE`; each takes its share of every batch, and gradients are averaged (DistributedDataParallel), so that the loss is
that of one process.
"""

from __future__ import annotations

import math
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from asr.errors import TrainingError
from asr.model.hardware import training_device
from asr.training.data import Batch, TargetEncoder, batches, load_augment, load_cuts
from asr.training.feature_cache import FeatureBatches
from asr.training.objective import Objective, pack
from asr.training.observer import Observer, Step, Stopwatch
from asr.training.recipe import Recipe, TrainConfig
from asr.training.schedule import learning_rate
from asr.training.spec_augment import mask, stretch
from asr.training.state import STATE, TrainingState, begin, keep, restore, save_state
from asr.training.validation import read_dev, score

if TYPE_CHECKING:
    from lhotse import CutSet

CHUNKS_FRAMES, LOOK_AHEADS_FRAMES = (8, 12, 16, 24, 32), (4, 8, 12)  # drawn for each batch of limited latency
MAX_BAD_UPDATES = 20  # in a row, whose loss is not finite: training has diverged
PRIOR_DECAY = 0.998  # of the running mean of posteriors, an update
CALIBRATION_UPDATES = 20  # whose median time tells how many fit into --minutes


def train(
    recipe: Recipe,
    folder: Path,
    *,
    init: Path | None = None,
    resume: bool = False,
    minutes: float | None = None,
    device: str = "cpu",
    observers: Sequence[Observer] = (),
) -> TrainingState:
    """Train as the recipe says and leave checkpoints in `folder`.

    Args:
        init: a checkpoint to start from, with its frontend, tokens and sizes.
        resume: go on from `last.state`.
        minutes: choose the number of updates so that they take about so long, by the median of the first ones.
        device: as `process` gives it.
        observers: told what happens.

    Raises RecipeError, ManifestError, CheckpointError, and TrainingError where the loss stays not finite.
    """
    cuts, dev = load_cuts(recipe.data.train, "train"), load_cuts(recipe.data.dev, "dev")
    state = begin(recipe, folder, torch.device(device), cuts, init)
    if resume:
        restore(state)
    encoder = TargetEncoder(state.tokens, state.recipe.data)
    dev_batches = read_dev(recipe, dev, state.frontend)
    parallel = nn.parallel.DistributedDataParallel(state.objective) if state.world > 1 else state.objective
    times: list[float] = []
    stop = Stop()
    for observer in observers:
        observer.start(state)
    stopwatch = Stopwatch()
    try:
        for batch in feed(state, batches_of(state, cuts)):
            begun = time.perf_counter()
            losses, norm = step(state, parallel, batch, encoder)
            times.append(time.perf_counter() - begun)
            state.batch += 1
            state.update += 1
            state.working += times[-1]
            state.seconds += batch.seconds * state.world
            state.failed.update(failure.partition(": ")[0] for failure in batch.failed)
            if minutes and state.planned is None and len(times) == CALIBRATION_UPDATES:
                state.planned = plan_updates(state, minutes, statistics.median(times))
            pace = stopwatch.lap(sum(losses.values()), batch.seconds * state.world, times[-1])
            for observer in observers:
                observer.step(state, Step(losses, norm, batch, pace))
            ended = state.update >= state.updates or all_reduce_sum(state, torch.tensor(float(stop.asked))) > 0
            if state.update % recipe.train.evaluate_every == 0 or state.update >= state.updates:
                errors = score(state, dev_batches, encoder)
                keep(state, errors)
                for observer in observers:
                    observer.scores(state, errors, dev_batches[-1])
                stopwatch.restart()
            if state.update % recipe.train.save_every == 0 or ended:
                save_state(state)
            if ended:
                break
    finally:
        stop.restore()
        for observer in observers:
            observer.end(state, encoder)
    return state


def batches_of(state: TrainingState, cuts: CutSet) -> Callable[..., Iterator[Batch]]:
    """What makes an epoch's batches: cached features, or those of audio that loader processes decode and augment."""
    recipe = state.recipe
    if recipe.data.cached:
        return FeatureBatches(state.frontend, recipe.data, recipe.augment).epoch
    return partial(batches, cuts, recipe.data, state.frontend, load_augment(recipe.augment, recipe.data))


def feed(state: TrainingState, epoch: Callable[..., Iterator[Batch]]) -> Iterator[Batch]:
    """Batches from where the training stands, epoch after epoch; the caller counts them in the state."""
    while state.update < state.updates:
        planned = state.planned
        for batch in epoch(
            partial(strength, state),
            epoch=state.epoch,
            skip=state.batch,
            first=state.update,
            seed=state.recipe.train.seed,
            rank=state.rank,
            world=state.world,
        ):
            yield batch
            if state.planned != planned:
                break  # the loader is ahead, with batches augmented as if for the old plan
        else:
            state.epoch, state.batch = state.epoch + 1, 0


def plan_updates(state: TrainingState, minutes: float, seconds: float) -> int:
    """How many updates, those that are done included, take so many minutes of work at `seconds` each."""
    updates = state.update + max(0.0, (minutes * 60 - state.working) / seconds)
    return round(float(all_reduce_sum(state, torch.tensor(updates))) / state.world)  # all processes must agree


def step(
    state: TrainingState,
    parallel: Objective | nn.parallel.DistributedDataParallel,
    batch: Batch,
    encoder: TargetEncoder,
) -> tuple[dict[str, float], float]:
    """One update: the mean loss a target token of each kind, and the gradient's norm before clipping.

    A loss or a gradient that is not finite leaves the weights as they are.
    """
    t = state.recipe.train
    torch.manual_seed(hash((t.seed, state.update, state.rank)))  # of dropout and masks: a resumed run draws the same
    latency = draw_latency(t, random.Random(hash((t.seed, state.update))))
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(
                state.update, state.updates, peak=t.learning_rate, warmup=t.warmup, hold=t.hold, final=t.final
            )
    state.objective.crf = t.crf if state.update >= t.crf_after * state.updates else 0.0
    targets = [encoder.targets(text) for text in batch.texts]
    tokens = all_reduce_sum(state, torch.tensor(float(sum(len(each) for every in targets for each in every.values()))))
    scale = 0.0 if batch.filler else state.world / max(1.0, float(tokens))
    sums = torch.zeros(0)
    parts = list(batch.parts(t.accumulate))
    for index, part in enumerate(parts):
        mel, lengths = state.mel(part)
        part_targets, degree = targets[index :: t.accumulate], strength(state, state.update)
        mel = stretch(mel, state.recipe.frontend, state.recipe.augment, degree)
        if t.consistency:  # a second view of each utterance: the same frames, masked elsewhere
            mel, lengths, part_targets = torch.cat([mel, mel]), lengths.repeat(2), part_targets * 2
        mel = mask(mel, state.recipe.augment, degree)
        packed = pack(part_targets, state.device)
        with ExitStack() as stack:
            if isinstance(parallel, nn.parallel.DistributedDataParallel) and index + 1 < len(parts):
                stack.enter_context(parallel.no_sync())  # once an update: another process may have fewer parts
            with torch.autocast(
                state.device.type,
                torch.float16 if t.precision == "fp16" else torch.bfloat16,
                enabled=t.precision != "fp32",
            ):
                losses, emissions, frames = parallel(mel, lengths, packed, latency)
            each = torch.stack(list(losses.values())) * scale
            state.scaler.scale(each.sum()).backward()
        sums = each.detach().cpu() + (sums if index else 0.0)
        if not batch.filler:
            average_posteriors(state, emissions, frames)
    means = dict(zip(losses, (all_reduce_sum(state, sums) / state.world).tolist(), strict=True))
    for optimizer in state.optimizers:
        state.scaler.unscale_(optimizer)
    norm = float(nn.utils.clip_grad_norm_(state.objective.parameters(), t.clip))
    if math.isfinite(norm) and all(map(math.isfinite, means.values())):
        for optimizer in state.optimizers:
            state.scaler.step(optimizer)
        state.average.update_parameters(state.model)
        state.bad = 0
    else:
        state.bad += 1
        state.skipped += 1
        if state.bad >= MAX_BAD_UPDATES:
            raise TrainingError(
                f"The loss was not finite for {MAX_BAD_UPDATES} updates in a row, up to update "
                f"{state.update}: lower train.learning_rate and go on with --resume from "
                f"{state.folder / STATE}."
            )
    state.scaler.update()
    return means, norm


def all_reduce_sum(state: TrainingState, value: Tensor) -> Tensor:
    """The sum over all processes; also in `value`."""
    if state.world > 1:
        torch.distributed.all_reduce(value)
    return value


def draw_latency(t: TrainConfig, rng: random.Random) -> tuple[int, int] | None:
    """Full context, or one of the chunks and look-aheads: one set of weights then serves every latency."""
    if rng.random() < t.full:
        return None
    chunk = rng.choice(CHUNKS_FRAMES)
    # A longer look-ahead costs more than it teaches.
    return chunk, rng.choice([each for each in LOOK_AHEADS_FRAMES if 2 * each <= chunk])


def strength(state: TrainingState, update: int) -> float:
    """Of the augmentation at an update, from 0 to 1."""
    ramp = state.recipe.augment.ramp
    return min(1.0, update / (ramp * state.updates)) if ramp > 0 else 1.0


@torch.no_grad()
def average_posteriors(state: TrainingState, emissions: dict[str, Tensor], frames: Tensor) -> None:
    """The running mean that becomes the checkpoint's label priors."""
    for name, values in emissions.items():
        heard = torch.arange(values.shape[1], device=values.device) < frames[:, None]
        mean = values.float().exp()[heard].mean(0)
        if torch.isfinite(mean).all():
            known = state.posteriors[name]
            state.posteriors[name] = mean if not known.any() else PRIOR_DECAY * known + (1 - PRIOR_DECAY) * mean


class Stop:
    """Until `restore`, SIGINT and SIGTERM end the training after the current update, with its state saved. Only the
    main thread of a program receives them."""

    def __init__(self) -> None:
        self.asked = False
        main = threading.current_thread() is threading.main_thread()
        self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM) if main}

    def ask(self, number: int, frame: object) -> None:
        self.asked = True

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


@contextmanager
def process(device: str, threads: int | None = None) -> Iterator[str]:
    """Set this process up to train, alone or as one of torchrun's; gives the name of its device.

    `device`: "auto", "cpu" or "cuda". Raises RillError where there is no such device.
    """
    device = training_device(device)
    torch.set_flush_denormal(True)  # the tiny probabilities of the CTC-CRF would take twice as long
    if threads:
        torch.set_num_threads(threads)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(device)
    try:
        yield device
    finally:
        torch.set_flush_denormal(False)  # it would hold for whatever else this process does
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
