"""What the tests of data and training share: real clips in a prepared folder, and a recipe for a model that is tiny."""

import json
from pathlib import Path

from asr.training.prepare import prepare
from asr.training.recipe import Recipe, read
from asr.training.sources import from_manifest

CLIPS = Path(__file__).parents[1] / "clips"
SHORT = (
    "kathleen-0",
    "commonvoice-5",
    "commonvoice-9",
    "kathleen-2",
    "commonvoice-2",
    "commonvoice-3",
    "commonvoice-7",
    "commonvoice-0",
)  # 23 s in all
OTHERS = ("ljspeech-1", "commonvoice-1")
RECIPE = """
name = "tiny"
[data]
train = ["{folder}"]
dev = ["{folder}"]
batch_seconds = 10
workers = 0
[model]
hidden = 16
layers = 2
stem_channels = 4
[augment]
speed = 0.0
gain = 0.0
narrow = 0.0
join = 0.0
time_masks = 0
band_masks = 0
[train]
updates = 4
learning_rate = 3e-3
warmup = 2
dropout = 0.0
averaging = 0.9
precision = "fp32"
evaluate_every = 100
save_every = 100
log_every = 1
"""


def write_manifest(path: Path, train: tuple[str, ...] = SHORT, dev: tuple[str, ...] = OTHERS) -> Path:
    """A manifest of clips by name, with splits."""
    clips = (CLIPS / "manifest.jsonl").read_text("utf-8").splitlines()
    entries = {Path(entry["audio"]).stem: entry for entry in map(json.loads, clips)}
    lines = [
        entries[name] | {"audio": str(CLIPS / f"{name}.flac"), "split": split}
        for split, names in (("train", train), ("dev", dev))
        for name in names
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def prepare_clips(folder: Path, train: tuple[str, ...] = SHORT, dev: tuple[str, ...] = OTHERS) -> Path:
    """A prepared folder of clips."""
    folder.mkdir()
    prepare(from_manifest(write_manifest(folder / "manifest.jsonl", train, dev)), folder)
    return folder


def write_recipe(path: Path, folder: Path) -> Path:
    path.write_text(RECIPE.format(folder=folder), encoding="utf-8")
    return path


def tiny(folder: Path, *changes: str) -> Recipe:
    """A recipe on a prepared folder, with changes as on the command line."""
    return read(write_recipe(folder / "tiny.toml", folder), changes)
