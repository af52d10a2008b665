"""Training, from top to bottom: prepared data in, a checkpoint out.

    recipe → cuts → batches → mel → objective → gradient → weights → running mean of the weights → checkpoint

`train` is the loop; each thing that it does is a function below it, in the order of its use. Everything counts in
updates: a slow or busy machine trains later, not worse. Many processes: `torchrun --nproc-per-node 2 -m asr.cli train
RECIPE`; each takes its share of every batch, and gradients are averaged (DistributedDataParallel), so that the loss is
that of one process.
"""
from __future__ import annotations

import dataclasses
import math
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchaudio.functional as AF
from torch import Tensor, nn

from asr.errors import TrainingError
from asr.model.hardware import training_device
from asr.model.tokens import CHARACTERS, TokenSet
from asr.training.data import Batch, Speller, batches, load_augment, load_cuts
from asr.training.feature_cache import FeatureBatches
from asr.training.objective import Objective, pack
from asr.training.recipe import Recipe, TrainConfig
from asr.training.spec_augment import vary
from asr.training.state import Run, begin, keep, restore, save_state

if TYPE_CHECKING:
    from lhotse import CutSet

    from asr.training.watch import Watch

CHUNKS, LOOK_AHEADS = (8, 12, 16, 24, 32), (4, 8, 12)  # frames, drawn for each batch with limited latency
MOST_BAD = 20                # updates in a row with a loss that is not finite: training has diverged
PRIOR_DECAY = 0.998          # of the running mean of posteriors, an update
CALIBRATION = 20             # updates whose median time tells how many fit into --minutes


def train(recipe: Recipe, folder: Path, *, init: Path | None = None, resume: bool = False, minutes: float | None = None,
          device: str = "cpu", watch: Watch | None = None) -> Run:
    """Train as the recipe says and leave checkpoints in `folder`.

    `init`: a checkpoint to start from, with its frontend, tokens and sizes. `resume`: go on from `last.state`.
    `minutes`: choose the number of updates so that they take about so long, by the median of the first ones.
    Raises RecipeError, ManifestError, CheckpointError, and TrainingError where the loss stays not finite.
    """
    cuts, dev = load_cuts(recipe.data.train, "train"), load_cuts(recipe.data.dev, "dev")
    run = begin(recipe, folder, torch.device(device), cuts, init)
    if resume:
        restore(run)
    speller = Speller(run.tokens, run.recipe.data)
    dev_batches = read_dev(recipe, dev)
    parallel = nn.parallel.DistributedDataParallel(run.objective) if run.world > 1 else run.objective
    times: list[float] = []
    stop = Stop()
    if watch:
        watch.start(run)
    try:
        for batch in feed(run, batches_of(run, cuts)):
            begun = time.perf_counter()
            losses, norm = step(run, parallel, batch, speller)
            times.append(time.perf_counter() - begun)
            run.batch += 1
            run.update += 1
            run.working += times[-1]
            run.seconds += batch.seconds * run.world
            run.failed.update(failure.partition(": ")[0] for failure in batch.failed)
            if minutes and run.planned is None and len(times) == CALIBRATION:
                run.planned = plan_updates(run, minutes, statistics.median(times))
            if watch:
                watch.step(run, losses, norm, times[-1], batch)
            ended = run.update >= run.updates or together(run, torch.tensor(float(stop.asked))) > 0
            if run.update % recipe.train.evaluate_every == 0 or run.update >= run.updates:
                errors = score(run, dev_batches, speller)
                keep(run, errors)
                if watch:
                    watch.scores(run, errors, dev_batches[-1])
            if run.update % recipe.train.save_every == 0 or ended:
                save_state(run)
            if ended:
                break
    finally:
        stop.restore()
        if watch:
            watch.end(run, speller)
    return run


def batches_of(run: Run, cuts: CutSet) -> Callable[..., Iterator[Batch]]:
    """What makes an epoch's batches: cached features, or samples that loader processes decode and augment."""
    recipe = run.recipe
    if recipe.data.cached:
        return FeatureBatches(run.frontend, recipe.data, recipe.augment).epoch
    return partial(batches, cuts, recipe.data, load_augment(recipe.augment, recipe.data))


def feed(run: Run, epoch: Callable[..., Iterator[Batch]]) -> Iterator[Batch]:
    """Batches from where the run stands, epoch after epoch; whoever takes them counts them in the run."""
    while run.update < run.updates:
        planned = run.planned
        for batch in epoch(partial(strength, run), epoch=run.epoch, skip=run.batch, first=run.update,
                           seed=run.recipe.train.seed, rank=run.rank, world=run.world):
            yield batch
            if run.planned != planned:
                break  # the loader is ahead, with batches augmented as if for the old plan
        else:
            run.epoch, run.batch = run.epoch + 1, 0


def plan_updates(run: Run, minutes: float, seconds: float) -> int:
    """How many updates, those that are done included, take so many minutes of work at `seconds` each."""
    updates = run.update + max(0.0, (minutes * 60 - run.working) / seconds)
    return round(float(together(run, torch.tensor(updates))) / run.world)  # all processes must agree


def step(run: Run, parallel: Objective | nn.parallel.DistributedDataParallel, batch: Batch, speller: Speller
         ) -> tuple[dict[str, float], float]:
    """One update: the mean loss a target token of each kind, and the gradient's norm before clipping.

    A loss or a gradient that is not finite leaves the weights as they are.
    """
    t = run.recipe.train
    torch.manual_seed(hash((t.seed, run.update, run.rank)))  # of dropout and masks: a resumed run draws the same
    latency = draw_latency(t, random.Random(hash((t.seed, run.update))))
    for optimizer in run.optimizers:
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(t, run.update, run.updates)
    run.objective.crf = t.crf if run.update >= t.crf_after * run.updates else 0.0
    targets = [speller.targets(text) for text in batch.texts]
    tokens = together(run, torch.tensor(float(sum(len(each) for every in targets for each in every.values()))))
    scale = 0.0 if batch.filler else run.world / max(1.0, float(tokens))
    sums = torch.zeros(0)
    parts = list(batch.parts(t.accumulate))
    for index, part in enumerate(parts):
        mel, lengths = mels(run, part)
        mel = vary(mel, run.recipe.frontend, run.recipe.augment, strength(run, run.update))
        packed = pack(targets[index::t.accumulate], run.device)
        with ExitStack() as stack:
            if isinstance(parallel, nn.parallel.DistributedDataParallel) and index + 1 < len(parts):
                stack.enter_context(parallel.no_sync())  # once an update: another process may have fewer parts
            with torch.autocast(run.device.type, torch.float16 if t.precision == "fp16" else torch.bfloat16,
                                enabled=t.precision != "fp32"):
                losses, emissions, frames = parallel(mel, lengths, packed, latency)
            each = torch.stack(list(losses.values())) * scale
            run.scaler.scale(each.sum()).backward()
        sums = each.detach().cpu() + (sums if index else 0.0)
        if not batch.filler:
            average_posteriors(run, emissions, frames)
    means = dict(zip(losses, (together(run, sums) / run.world).tolist(), strict=True))
    for optimizer in run.optimizers:
        run.scaler.unscale_(optimizer)
    norm = float(nn.utils.clip_grad_norm_(run.objective.parameters(), t.clip))
    if math.isfinite(norm) and all(map(math.isfinite, means.values())):
        for optimizer in run.optimizers:
            run.scaler.step(optimizer)
        run.average.update_parameters(run.model)
        run.bad = 0
    else:
        run.bad += 1
        run.skipped += 1
        if run.bad >= MOST_BAD:
            raise TrainingError(f"The loss was not finite for {MOST_BAD} updates in a row, up to update {run.update}: "
                                f"lower train.learning_rate and go on with --resume from {run.folder / 'last.state'}.")
    run.scaler.update()
    return means, norm


def together(run: Run, value: Tensor) -> Tensor:
    """The sum over all processes."""
    if run.world > 1:
        torch.distributed.all_reduce(value)
    return value


def draw_latency(t: TrainConfig, rng: random.Random) -> tuple[int, int] | None:
    """Full context, or one of the chunks and look-aheads: one set of weights then serves every latency."""
    if rng.random() < t.full:
        return None
    chunk = rng.choice(CHUNKS)
    return chunk, rng.choice([each for each in LOOK_AHEADS if 2 * each <= chunk])  # more costs more than it teaches


def learning_rate(t: TrainConfig, update: int, updates: int) -> float:
    """Warm-up (of a short run half at most), hold, cosine."""
    warmup = min(t.warmup, updates // 2)
    if update < warmup:
        return t.learning_rate * (update + 1) / warmup
    held = max(t.hold * updates, warmup)
    if update < held:
        return t.learning_rate
    fraction = (update - held) / max(1, updates - held)
    return t.learning_rate * (t.final + (1 - t.final) * 0.5 * (1 + math.cos(math.pi * fraction)))


def strength(run: Run, update: int) -> float:
    """Of the augmentation at an update, from 0 to 1."""
    ramp = run.recipe.augment.ramp
    return min(1.0, update / (ramp * run.updates)) if ramp > 0 else 1.0


def mels(run: Run, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mel frames (B, T, bands), and each utterance's number of them."""
    if batch.samples.ndim == 3:  # they are that already
        return batch.samples.to(run.device, non_blocking=True), batch.lengths.to(run.device)
    with torch.no_grad():
        samples = batch.samples.to(run.device, non_blocking=True)
        need = run.frontend.config.n_fft
        if samples.shape[1] < need:
            samples = nn.functional.pad(samples, (0, need - samples.shape[1]))
        mel = run.frontend.batch(samples)
        lengths = torch.tensor([max(1, run.frontend.frames(int(each))) for each in batch.lengths], device=run.device)
    return mel, lengths


@torch.no_grad()
def average_posteriors(run: Run, emissions: dict[str, Tensor], frames: Tensor) -> None:
    """The running mean that becomes the checkpoint's label priors."""
    for name, values in emissions.items():
        heard = torch.arange(values.shape[1], device=values.device) < frames[:, None]
        mean = values.float().exp()[heard].mean(0)
        if torch.isfinite(mean).all():
            known = run.posteriors[name]
            run.posteriors[name] = mean if not known.any() else PRIOR_DECAY * known + (1 - PRIOR_DECAY) * mean


def read_dev(recipe: Recipe, dev: CutSet) -> list[Batch]:
    """Batches of utterances spread over all of dev, without augmentation."""
    chosen = list(dev)
    wanted = recipe.data.dev_utterances
    chosen = [chosen[i * len(chosen) // wanted] for i in range(wanted)] if wanted < len(chosen) else chosen
    from lhotse import CutSet

    quiet = dataclasses.replace(recipe.data, workers=0, sorted_epochs=1)
    return list(batches(CutSet.from_cuts(chosen), quiet, None, lambda _: 0.0, epoch=0, skip=0, first=0, seed=0))


@torch.no_grad()
def score(run: Run, dev: Sequence[Batch], speller: Speller) -> dict[str, float]:
    """Token error rate of each head, greedy, full context, and of words spelled in characters; averaged weights."""
    model = run.averaged.eval()
    errors: dict[str, list[int]] = {name: [0, 0] for name in [*run.tokens, "words"]}
    for batch in dev:
        emissions, frames = model(*mels(run, batch))
        for name, values in emissions.items():
            paths = values.argmax(-1).cpu()
            for path, length, text in zip(paths, frames.cpu(), batch.texts, strict=True):
                heard = [int(token) for token in torch.unique_consecutive(path[:length]) if token]
                said = speller.targets(text)[name]
                count(errors[name], said, heard)
                if name == CHARACTERS:
                    count(errors["words"], *(text_of(run.tokens[name], each) for each in (said, heard)))
    model.train()
    return {name: wrong / max(1, total) for name, (wrong, total) in errors.items()}


def count(errors: list[int], said: Sequence[Any], heard: Sequence[Any]) -> None:
    errors[0] += AF.edit_distance(said, heard)
    errors[1] += len(said)


def text_of(tokens: TokenSet, path: Sequence[int]) -> list[str]:
    """Words of a path of characters."""
    return "".join(tokens.symbols[token] for token in path).split(tokens.boundary)


class Stop:
    """SIGINT and SIGTERM end the run after the update that is under way, with its state saved, until `restore`. Only a
    program's main thread can hear them."""

    def __init__(self) -> None:
        self.asked = False
        main = threading.current_thread() is threading.main_thread()
        self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM) if main}

    def ask(self, number: int, frame: object) -> None:
        self.asked = True

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def run(recipe: Recipe, folder: Path | None, *, init: Path | None, resume: bool, minutes: float | None, device: str,
        threads: int | None) -> None:
    """`asr train`, alone or as one of torchrun's processes."""
    from asr.training.watch import Watch

    device = training_device(device)
    torch.set_flush_denormal(True)  # the tiny probabilities of the CTC-CRF would take twice as long
    if threads:
        torch.set_num_threads(threads)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(device)
    folder = folder or Path("runs") / recipe.name
    if not resume and (folder / "last.state").exists():
        raise TrainingError(f"{folder} holds a run already: go on with --resume, or give another folder with --output.")
    try:
        train(recipe, folder, init=init, resume=resume, minutes=minutes, device=device, watch=Watch())
    finally:
        torch.set_flush_denormal(False)  # it would hold for whatever else this process does
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
