"""The basic RNN, the GRU and the LSTM, with equal parameters and equal training.

    python benchmarks/cells.py recipes/cells.toml --output runs/cells --plots docs/benchmarks

Trains one model of each cell, their hidden sizes chosen so that all have about as many parameters as the recipe's,
and prints a Markdown table: errors on dev (greedy), speed of training and of transcribing, memory of a live stream's
state, and how far back in time the gradient reaches, before and after training. Complete runs are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import matplotlib
import torch

from asr.cli.training_display import TrainingDisplay
from asr.model import checkpoint
from asr.model.acoustic import CELLS, AcousticModel
from asr.model.streaming import ModelConfig
from asr.model.torch_runtime import TorchModel
from asr.training.data import TargetEncoder, load_cuts, token_sets
from asr.training.gradients import by_distance
from asr.training.recipe import Recipe, read
from asr.training.state import begin
from asr.training.tensorboard import TensorBoard
from asr.training.trainer import train
from asr.training.validation import read_dev, score

matplotlib.use("Agg")
COLORS = {"rnn": "#c2571a", "gru": "#1a7f8e", "lstm": "#5b4ba8"}
LEAST = 1e-3  # of the gradient at distance 0: how far back it is as large is the "reach" in the table
REPEATS = 5


def parameters(model: AcousticModel) -> int:
    return sum(each.numel() for each in model.parameters())


def of_equal_size(config: ModelConfig, cell: str, bands: int, heads: dict[str, int]) -> ModelConfig:
    """The hidden size, a multiple of 8, whose model has most nearly as many parameters as `config`'s."""
    wanted = parameters(AcousticModel(config, bands, heads))
    sizes = [dataclasses.replace(config, cell=cell, hidden=8 * n) for n in range(2, 128)]
    return min(sizes, key=lambda each: abs(parameters(AcousticModel(each, bands, heads)) - wanted))


def state_bytes(model: AcousticModel) -> int:
    """Of the forward RNNs' states that a live stream carries from chunk to chunk."""
    return sum(part.nbytes for part in TorchModel(model).stream_state().rnn)


def reach(curve: torch.Tensor) -> int:
    """Frames until the gradient is less than `LEAST` of what it is at distance 0, for good."""
    above = (curve >= LEAST).nonzero()
    return int(above.max()) + 1 if len(above) else 0


def measure(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train one model, unless `folder` holds its result, and measure it."""
    result = folder / "result.json"
    if result.is_file():
        return json.loads(result.read_text())
    cuts = load_cuts(recipe.data.train, "train")
    fresh = begin(recipe, folder, torch.device("cpu"), cuts, None)
    dev = read_dev(recipe, load_cuts(recipe.data.dev, "dev"), fresh.frontend)
    longest = dev[-1]
    before = by_distance(fresh.model, *fresh.mel(longest))
    resume = (folder / "last.state").exists()
    run = train(recipe, folder, resume=resume, observers=[TensorBoard(), TrainingDisplay()])
    model = checkpoint.load(folder / "last").torch_model()
    seconds = sum(batch.seconds for batch in dev)
    inputs = [run.mel(batch) for batch in dev]
    with torch.inference_mode():
        model(*inputs[0])
        times = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            for mel, lengths in inputs:
                model(mel, lengths)
            times.append(time.perf_counter() - begun)
    model.requires_grad_(True)
    after = by_distance(model, *run.mel(longest)).tolist()
    found = {
        "cell": recipe.model.cell,
        "hidden": recipe.model.hidden,
        "parameters": parameters(model),
        "errors": score(run, dev, TargetEncoder(run.tokens, recipe.data)),
        "updates": run.update,
        "training": run.seconds / run.working,
        "transcribing": seconds / min(times),
        "state": state_bytes(model),
        "skipped": run.skipped,
        "before": before.tolist(),
        "after": after,
    }
    result.write_text(json.dumps(found, indent=1))
    return found


def plot(results: list[dict[str, Any]], seconds_per_frame: float, path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    for axis, key in zip(axes, ("before", "after"), strict=True):
        for each in results:
            curve = each[key]
            axis.semilogy(
                [i * seconds_per_frame for i in range(len(curve))],
                curve,
                color=COLORS[each["cell"]],
                label=each["cell"].upper(),
            )
        axis.set_title(f"{key} training")
        axis.set_xlabel("distance in time (s)")
        axis.set_xlim(0, 4)
        axis.grid(alpha=0.25)
    axes[0].set_ylim(1e-6, 2)
    axes[0].set_ylabel("gradient, relative to distance 0")
    axes[1].legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=Path("runs/cells"))
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    recipe = read(args.recipe, args.changes)
    heads = {name: len(each) for name, each in token_sets(load_cuts(recipe.data.train, "train"), recipe.data).items()}
    results = []
    print(
        "| cell | hidden | parameters (M) | seed | "
        + " | ".join(f"{name} errors %" for name in [*heads, "words"])
        + " | training (audio-s/s) | transcribing (audio-s/s) | live state (kB) | reach before (s) | reach after (s) |"
    )
    print("| --- " * (9 + len(heads) + 1) + "|")
    for cell in CELLS:
        model = of_equal_size(recipe.model, cell, recipe.frontend.mels, heads)
        for seed in range(args.seeds):
            chosen = dataclasses.replace(recipe, model=model, train=dataclasses.replace(recipe.train, seed=seed))
            r = measure(chosen, args.output / f"{cell}-{seed}")
            frame = 0.01 * model.subsampling
            print(
                f"| {cell} | {r['hidden']} | {r['parameters'] / 1e6:.2f} | {seed} | "
                + " | ".join(f"{100 * value:.1f}" for value in r["errors"].values())
                + f" | {r['training']:.0f} | {r['transcribing']:.0f} | {r['state'] / 1000:.1f} | "
                f"{reach(torch.tensor(r['before'])) * frame:.2f} | {reach(torch.tensor(r['after'])) * frame:.2f} |",
                flush=True,
            )
            results += [r] if seed == 0 else []
    if args.plots:
        plot(results, 0.01 * recipe.model.subsampling, args.plots / "cells.png")


if __name__ == "__main__":
    main()
