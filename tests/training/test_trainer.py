"""Training as users run it: it learns, stops and goes on, in one process and in two, and says what is wrong."""

import dataclasses
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from asr.cli.training_display import TrainingDisplay
from asr.errors import RecipeError, TrainingError
from asr.inference.recognizer import load
from asr.model import checkpoint
from asr.training import trainer as training
from asr.training.data import Batch, TargetEncoder
from asr.training.observer import Observer, Step
from asr.training.prepare import load_prepared, prepare
from asr.training.recipe import TrainConfig
from asr.training.sources import from_noise
from asr.training.state import TrainingState
from asr.training.tensorboard import TensorBoard
from asr.training.trainer import draw_latency, plan_updates, strength, train
from tests.conftest import Asr, Clip
from tests.support.checkpoints import listed, wrong
from tests.support.text import lmplz
from tests.support.training import SHORT, prepare_clips, tiny, write_manifest, write_recipe

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
EVERYTHING = (
    "augment.speed=0.6",
    "augment.noise=0.5",
    "augment.noise_only=0.5",
    "augment.gain=12",
    "augment.join=0.5",
    "augment.time_masks=2",
    "augment.band_masks=2",
    "augment.ramp=0.5",
    "train.dropout=0.2",
    "train.precision=bf16",
    "data.workers=1",
)
MUON = 5e-4  # its steps tell weights apart that have the same losses


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips to train on, two of dev, and noise in `noise`."""
    folder = prepare_clips(tmp_path_factory.mktemp("data") / "clips")
    (folder / "sounds").mkdir()
    soundfile.write(folder / "sounds" / "hiss.wav", np.random.default_rng(0).normal(0, 0.05, 20 * 16_000), 16_000)
    prepare(from_noise(folder / "sounds"), folder / "noise")
    return folder


class Diary(Observer):
    """Remembers what a run tells; shows nothing."""

    def __init__(self, tell: Callable[[TrainingState], None] = lambda run: None) -> None:
        self.tell = tell
        self.losses: list[dict[str, float]] = []
        self.norms: list[float] = []
        self.loudness: list[float] = []
        self.errors: list[dict[str, float]] = []
        self.ended = False

    def start(self, run: TrainingState) -> None:
        self.run, self.first = run, weights(run)

    def step(self, run: TrainingState, step: Step) -> None:
        self.losses.append(step.losses)
        self.loudness.append(float(step.batch.mel.exp().sum()))
        self.norms.append(step.norm)
        self.tell(run)

    def scores(self, run: TrainingState, errors: dict[str, float], batch: Batch) -> None:
        self.errors.append(errors)

    def end(self, run: TrainingState, encoder: TargetEncoder) -> None:
        self.ended = True


def weights(run: TrainingState) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.objective.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def state(folder: Path) -> dict:
    return torch.load(folder / "last.state", weights_only=True)


def scalars(folder: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def command(*arguments: object) -> tuple[list[str], dict[str, str]]:
    """`asr` in a process of its own, on one thread."""
    return (
        [sys.executable, "-m", "asr.cli", *map(str, arguments)],
        os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@contextmanager
def started(folder: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`asr train` into `folder`, in a process group of its own, that has saved a state; it is killed in the end."""
    line, environment = command("train", *arguments, "-o", folder, "--device", "cpu", "--threads", "1")
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while not (folder / "last.state").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.002)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_eight_clips_are_learned_by_heart(tmp_path: Path, clips: list[Clip], asr: Asr) -> None:
    manifest = write_manifest(tmp_path / "eight.jsonl")
    assert asr("prepare", "index", manifest, tmp_path / "eight")[0] == 0
    folder = json.dumps([str(tmp_path / "eight")])
    status, _, said = asr(
        "train",
        ROOT / "tests" / "overfit.toml",
        f"data.train={folder}",
        f"data.dev={folder}",
        "-o",
        tmp_path / "run",
        "--device",
        "cpu",
        "--threads",
        "1",
    )
    assert status == 0 and f"checkpoints: {tmp_path / 'run' / 'last'}" in said
    assert (
        asr(
            "evaluate",
            manifest,
            "--split",
            "train",
            "--no-lm",
            "--checkpoint",
            tmp_path / "run" / "last",
            "--device",
            "cpu",
            "-o",
            tmp_path / "figures.json",
        )[0]
        == 0
    )
    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert figures["corpora"]["all"]["wer"] == 0.0, figures
    recognizer = load(tmp_path / "run" / "last", lm=False, device="cpu")
    learned = {clip.path.stem: clip for clip in clips if clip.path.stem in SHORT}
    for latency in ("offline", "balanced"):  # trained with both
        assert [recognizer.decode_utterance(clip.samples, latency).text for clip in learned.values()] == [
            clip.text for clip in learned.values()
        ]
    if lmplz():  # then the language model, in the checkpoint's characters
        (tmp_path / "texts.txt").write_text("".join(f"{clip.text}\n" for clip in clips), encoding="utf-8")
        last = tmp_path / "run" / "last"
        assert asr("lm", tmp_path / "texts.txt", "--out", last)[0] == 0
        assert asr("tune", manifest, "--split", "train", "--checkpoint", last, "--device", "cpu")[0] == 0
        assert (
            asr(
                "evaluate",
                manifest,
                "--split",
                "train",
                "--checkpoint",
                last,
                "--device",
                "cpu",
                "-o",
                tmp_path / "figures.json",
            )[0]
            == 0
        )
        assert json.loads((tmp_path / "figures.json").read_text("utf-8"))["corpora"]["all"]["wer"] == 0.0
        assert wrong(last) == [] and len(listed(last)) >= 7


def test_killed_and_resumed_is_as_if_it_had_never_stopped(data: Path, tmp_path: Path, asr: Asr) -> None:
    asked = (
        write_recipe(tmp_path / "tiny.toml", data),
        *EVERYTHING,
        f"data.noise={data / 'noise'}",
        "train.updates=16",
        "train.save_every=3",
    )
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    assert asr("train", *asked, "-o", unbroken, "--device", "cpu", "--threads", "1")[0] == 0
    with started(killed, *asked):
        pass
    assert 0 < state(killed)["numbers"]["update"] < 16
    status, _, said = asr("train", *asked, "-o", killed, "--device", "cpu", "--threads", "1", "--resume")
    assert status == 0 and "going on from update" in said
    one, other = state(unbroken), state(killed)
    for part in ("objective", "average", "posteriors"):
        assert same(one[part], other[part]), part
    assert one["numbers"] | {"working": 0} == other["numbers"] | {"working": 0}
    loaded = [checkpoint.load(folder / "last") for folder in (unbroken, killed)]
    assert same(loaded[0].torch_model().state_dict(), loaded[1].torch_model().state_dict())
    assert loaded[0].config.tokens == loaded[1].config.tokens


def test_asked_to_stop_it_saves_what_it_has(data: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.toml", data)
    with started(tmp_path / "run", recipe, "train.updates=100000", "train.save_every=5", "data.workers=1") as process:
        os.killpg(process.pid, signal.SIGTERM)  # loader processes are told too
        _, said = process.communicate(timeout=300)
    update = state(tmp_path / "run")["numbers"]["update"]
    assert process.returncode == 0 and f"stopped at update {update}; --resume goes on from there" in said
    assert update >= 5


def test_two_processes_have_the_losses_of_one(data: Path, tmp_path: Path) -> None:
    changes = ("train.updates=9", "data.batch_seconds=7")  # too few seconds for two utterances in some batches
    one = Diary()
    train(tiny(data, *changes), tmp_path / "one", observers=[one])
    line, environment = command(
        "train",
        write_recipe(tmp_path / "tiny.toml", data),
        *changes,
        "-o",
        tmp_path / "two",
        "--device",
        "cpu",
        "--threads",
        "1",
    )
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *line[1:]],
        env=environment,
        check=True,
        capture_output=True,
        timeout=300,
    )
    losses = scalars(tmp_path / "two")
    for name in ("characters", "middle characters"):
        np.testing.assert_allclose(losses[f"loss/{name}"], [each[name] for each in one.losses], rtol=1e-4)
    np.testing.assert_allclose(losses["gradient/norm"], one.norms, rtol=1e-3)
    found = state(tmp_path / "two")
    assert found["numbers"]["update"] == 9
    for name, value in found["objective"].items():
        torch.testing.assert_close(value, one.run.objective.state_dict()[name], rtol=1e-3, atol=MUON)


def test_accumulated_parts_are_the_whole(data: Path, tmp_path: Path) -> None:
    whole, parts = Diary(), Diary()
    train(tiny(data, "data.batch_seconds=30"), tmp_path / "whole", observers=[whole])
    train(tiny(data, "data.batch_seconds=30", "train.accumulate=3"), tmp_path / "parts", observers=[parts])
    np.testing.assert_allclose(
        [each["characters"] for each in parts.losses], [each["characters"] for each in whole.losses], rtol=1e-4
    )
    for name, value in weights(whole.run).items():
        torch.testing.assert_close(weights(parts.run)[name], value, rtol=1e-3, atol=MUON)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """Makes the sound of some updates NaN."""

    def when(spoilt: Callable[[int], bool]) -> None:
        whole = TrainingState.mel
        monkeypatch.setattr(
            TrainingState,
            "mel",
            lambda run, batch: (whole(run, batch)[0] * (math.nan if spoilt(run.update) else 1.0), whole(run, batch)[1]),
        )

    return when


def test_a_loss_that_is_not_a_number_is_skipped(data: Path, tmp_path: Path, spoil: Callable) -> None:
    spoil(lambda update: update in (2, 3))
    seen: list[dict[str, Tensor]] = []
    diary = Diary(lambda run: seen.append(weights(run) | run.average.state_dict()))
    run = train(tiny(data, "train.updates=6"), tmp_path / "run", observers=[diary])
    assert run.update == 6 and run.skipped == 2 and run.bad == 0
    assert [math.isfinite(each["characters"]) for each in diary.losses] == [True, True, False, False, True, True]
    assert same(seen[1], seen[2]) and same(seen[2], seen[3]) and not same(seen[3], seen[4])
    assert all(value.isfinite().all() for each in seen for value in each.values())
    assert all(prior > 0 for prior in checkpoint.load(tmp_path / "run" / "last").config.tokens["characters"].priors)


def test_a_run_that_has_diverged_says_so(data: Path, tmp_path: Path, spoil: Callable) -> None:
    spoil(lambda update: True)
    diary, before = Diary(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingError, match=r"not finite for 20 updates in a row.*learning_rate.*--resume"):
        train(tiny(data, "train.updates=50"), tmp_path / "run", observers=[diary])
    assert diary.ended and diary.run.update == 19 and same(weights(diary.run), diary.first)
    assert signal.getsignal(signal.SIGTERM) is before


def test_augmentation_grows_with_the_updates(data: Path) -> None:
    recipe = tiny(data, "augment.ramp=0.5", "train.updates=100")
    run = SimpleNamespace(recipe=recipe, updates=100)
    assert [strength(run, update) for update in (0, 25, 50, 99)] == [0.0, 0.5, 1.0, 1.0]
    run = SimpleNamespace(recipe=dataclasses.replace(recipe, augment=dataclasses.replace(recipe.augment, ramp=0.0)))
    assert strength(run, 0) == 1.0


def test_latencies_are_drawn_as_the_recipe_says() -> None:
    drawn = [draw_latency(TrainConfig(full=0.5), random.Random(i)) for i in range(2000)]
    assert 900 < drawn.count(None) < 1100
    assert {each[0] for each in drawn if each} == {8, 12, 16, 24, 32}
    assert {each[1] for each in drawn if each} == {4, 8, 12}
    assert {draw_latency(TrainConfig(full=1.0), random.Random(i)) for i in range(99)} == {None}


def test_updates_that_fit_into_minutes() -> None:
    run = SimpleNamespace(update=60, working=30.0, world=1)
    assert plan_updates(run, 2.0, 0.5) == 60 + 180
    assert plan_updates(run, 0.4, 0.5) == 60  # they are over


def test_minutes_plan_the_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: next(clock)))  # an update takes 1 s
    monkeypatch.setattr(training, "CALIBRATION_UPDATES", 3)
    seen: list[tuple[int, float]] = []
    diary = Diary(lambda run: seen.append((run.updates, run.optimizers[0].param_groups[0]["lr"])))
    changes = ("train.hold=0.5", "augment.ramp=1.0", "augment.gain=12", "data.batch_seconds=4", "data.workers=1")
    run = train(tiny(data, "train.updates=1000", *changes), tmp_path / "run", minutes=0.2, observers=[diary])
    assert run.update == run.planned == 12 and [updates for updates, _ in seen] == [1000, 1000, *[12] * 10]
    assert seen[-1][1] < 0.1 * run.recipe.train.learning_rate  # the cosine has come to its end
    again = Diary()
    train(tiny(data, "train.updates=12", *changes), tmp_path / "again", observers=[again])
    assert diary.loudness[3:] == again.loudness[3:] and diary.loudness[:3] != again.loudness[:3]
    assert state(tmp_path / "run")["planned"] == 12


def test_resumed_without_minutes_the_plan_stays(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CALIBRATION_UPDATES", 2)
    monkeypatch.setattr(training, "plan_updates", lambda run, minutes, seconds: 5)
    stopped = Diary(lambda run: os.kill(os.getpid(), signal.SIGINT) if run.update == 3 else None)
    assert train(tiny(data, "train.updates=50"), tmp_path, minutes=1.0, observers=[stopped]).update == 3
    assert train(tiny(data, "train.updates=50"), tmp_path, resume=True).update == 5


Spoken = tuple[TrainingState, Diary, Path]


@pytest.fixture(scope="module")
def spoken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Spoken:
    """A run with phonemes and the CRF, and the lexicon's path."""
    home = tmp_path_factory.mktemp("spoken")
    texts = {word for cut in load_prepared(data, "train") for word in cut.supervisions[0].text.split()}
    (home / "words.txt").write_text("".join(f"{word}\t{' '.join(word.upper())}\n" for word in sorted(texts)), "utf-8")
    diary = Diary()
    run = train(
        tiny(
            data,
            f"data.lexicon={home / 'words.txt'}",
            "train.crf=1.0",
            "train.crf_after=0.4",
            "model.cell=gru",
            "train.updates=5",
            "train.evaluate_every=2",
        ),
        home / "run",
        observers=[diary],
    )
    return run, diary, home


def test_phonemes_and_the_crf(spoken: Spoken) -> None:
    run, diary, home = spoken
    names = ["characters", "phonemes", "middle characters", "middle phonemes"]
    assert [list(each) for each in diary.losses] == 2 * [names] + 3 * [[*names, "crf"]]
    for each in diary.losses:
        assert all(map(math.isfinite, each.values())) and each["phonemes"] + each.get("crf", 0.0) > 0
    assert [set(each) for each in diary.errors] == [{"characters", "phonemes", "words"}] * 3
    assert run.best == min(each["phonemes"] for each in diary.errors)
    assert set(checkpoint.load(home / "run" / "last").config.tokens) == {"characters", "phonemes"}
    changed = {name for name, value in weights(run).items() if not torch.equal(value, diary.first[name])}
    assert {"model.heads.phonemes.weight", "middle_heads.phonemes.weight", "model.stem.conv1.weight"} <= changed


def test_a_checkpoint_to_start_from_keeps_what_it_has(data: Path, tmp_path: Path, spoken: Spoken) -> None:
    base = tmp_path / "base"
    old = checkpoint.load(spoken[2] / "run" / "last")
    checkpoint.save(
        base, dataclasses.replace(old.config, decoding=checkpoint.DecodingConfig(lm_weight=3.5)), old.weights()
    )
    (base / "lexicon.txt").write_bytes((spoken[2] / "words.txt").read_bytes())
    (base / "ngram.safetensors").write_bytes(b"a language model")
    modes: list[bool] = []
    diary = Diary(lambda run: modes.append(all(module.training for module in run.objective.modules())))
    recipe = tiny(
        data,
        "model.hidden=64",
        "model.cell=lstm",
        "frontend.mels=40",
        "train.learning_rate=0",
        "train.updates=2",
        "name=mine",
        "train.dropout=0.5",
    )
    run = train(recipe, tmp_path / "run", init=base, observers=[diary])
    assert same(
        {name[6:]: value for name, value in diary.first.items() if name.startswith("model.")},
        old.torch_model().state_dict(),
    )
    assert modes == [True, True]  # else there is no dropout
    new = checkpoint.load(tmp_path / "run" / "best")
    assert (new.config.name, new.config.model, new.config.frontend) == ("mine", old.config.model, old.config.frontend)
    assert new.config.decoding.lm_weight == 3.5
    assert {name: each.symbols for name, each in new.config.tokens.items()} == {
        name: each.symbols for name, each in old.config.tokens.items()
    }
    assert same(new.torch_model().state_dict(), old.torch_model().state_dict())
    assert new.optional("ngram.safetensors").read_bytes() == b"a language model" and new.optional("lexicon.txt")
    assert run.update == 2
    assert wrong(tmp_path / "run" / "best") == [] and "ngram.safetensors" in listed(tmp_path / "run" / "best")


def test_language_and_licence_go_on_unless_the_recipe_says_otherwise(data: Path, tmp_path: Path) -> None:
    train(tiny(data, "train.updates=1", "language=de", "licence=CC0"), tmp_path / "a")
    for changes, expected in (((), ("de", "CC0")), (("language=en", "licence=MIT"), ("en", "MIT"))):
        home = tmp_path / expected[0]
        train(tiny(data, "train.updates=1", *changes), home, init=tmp_path / "a" / "last")
        config = checkpoint.read_config(home / "last" / "config.json")
        assert (config.language, config.licence) == expected


def test_a_checkpoint_of_another_alphabet_is_no_start(data: Path, tmp_path: Path) -> None:
    train(tiny(data, "train.updates=1"), tmp_path / "a")
    old = checkpoint.load(tmp_path / "a" / "last")
    tokens = old.config.tokens["characters"]
    symbols = tuple(chr(ord(each) + 1000) if each.isalpha() else each for each in tokens.symbols)
    config = dataclasses.replace(old.config, tokens={"characters": dataclasses.replace(tokens, symbols=symbols)})
    checkpoint.save(tmp_path / "other", config, old.weights())
    with pytest.raises(RecipeError, match=r"has no .* e.*of the texts: train without --init"):
        train(tiny(data, "train.updates=1"), tmp_path / "b", init=tmp_path / "other")


def test_characters_that_the_checkpoint_lacks_are_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny(data, "train.updates=1"), tmp_path / "a")
    old = checkpoint.load(tmp_path / "a" / "last")
    tokens = old.config.tokens["characters"]
    rare = tuple("Ω" if each == "k" else each for each in tokens.symbols)
    checkpoint.save(
        tmp_path / "other",
        dataclasses.replace(old.config, tokens={"characters": dataclasses.replace(tokens, symbols=rare)}),
        old.weights(),
    )
    train(tiny(data, "train.updates=1"), tmp_path / "b", init=tmp_path / "other", observers=[TrainingDisplay()])
    assert "this starts from has no k: left out of the texts." in capsys.readouterr().err


def test_a_run_that_began_from_a_checkpoint_cannot_go_on_without_it(data: Path, tmp_path: Path) -> None:
    recipe = tiny(data, "train.updates=2")
    train(recipe, tmp_path / "a")
    old = checkpoint.load(tmp_path / "a" / "last")
    tokens = old.config.tokens["characters"]
    turned = dataclasses.replace(tokens, symbols=(*tokens.symbols[:2], *tokens.symbols[:1:-1]))  # as many, turned round
    checkpoint.save(tmp_path / "base", dataclasses.replace(old.config, tokens={"characters": turned}), old.weights())
    train(recipe, tmp_path / "b", init=tmp_path / "base")
    with pytest.raises(TrainingError, match=r"other tokens.*--init"):
        train(recipe, tmp_path / "b", resume=True)
    assert train(recipe, tmp_path / "b", init=tmp_path / "base", resume=True).update == 2


def test_a_state_of_before_the_symbols_were_kept_resumes(data: Path, tmp_path: Path) -> None:
    train(tiny(data, "train.updates=2"), tmp_path)
    old = state(tmp_path)
    del old["symbols"]
    torch.save(old, tmp_path / "last.state")
    assert train(tiny(data, "train.updates=3"), tmp_path, resume=True).update == 3


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precisions_and_cells(data: Path, tmp_path: Path, cell: str, precision: str) -> None:
    diary = Diary()
    recipe = tiny(data, f"train.precision={precision}", f"model.cell={cell}", "train.full=0.5")
    run = train(recipe, tmp_path, observers=[diary])
    assert run.skipped == 0 and not same(weights(run), diary.first)
    assert all(value.dtype == torch.float32 for value in run.model.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_on_a_gpu(data: Path, tmp_path: Path, precision: str) -> None:
    diary = Diary()
    run = train(tiny(data, f"train.precision={precision}"), tmp_path, observers=[diary], device="cuda")
    assert run.skipped == 0 and not same(weights(run), diary.first)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.precision=fp16", "fp16 needs a GPU"),
        ("train.precision=fp8", "train.precision is 'fp8'"),
        ("model.cell=qrnn", "unknown cell 'qrnn'"),
        ("frontend.kind=mel", "unknown frontend 'mel'"),
        ("model.subsampling=5", "subsampling 5 is not available"),
    ],
)
def test_what_a_recipe_cannot_ask_for(data: Path, tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        train(tiny(data, change), tmp_path)


def test_what_the_command_refuses(data: Path, tmp_path: Path, asr: Asr) -> None:
    recipe = write_recipe(tmp_path / "tiny.toml", data)
    asked = ("train", recipe, "train.updates=1", "-o", tmp_path / "run", "--device", "cpu")
    for extra, said in (
        (("--resume",), "last.state is not there, so there is nothing to resume"),
        (("train.update=1",), "unknown key 'train.update'"),
        (("data.dev=[]",), "names no folder for 'dev'"),
        (('data.train=["gone"]',), "gone holds no prepared split 'train'"),
        *([] if torch.cuda.is_available() else [(("--device", "cuda"), "There is no CUDA GPU")]),
        (("--init", tmp_path), "is not a checkpoint"),
    ):
        status, _, err = asr(*asked, *extra)
        assert status == 1 and said in err and err.startswith("asr: ") and err.count("\n") == 1
    assert asr(*asked)[0] == 0
    for extra, said in (
        ((), "holds a run already: go on with --resume, or give another folder with --output"),
        (("--resume", "model.hidden=24"), "last.state does not fit"),
        (("--resume", "model.layers=3"), "last.state does not fit"),
    ):
        status, _, err = asr(*asked, *extra)
        assert status == 1 and said in err and err.startswith("asr: ") and err.count("\n") == 1
    (tmp_path / "run" / "last.state").write_bytes(b"garbage")
    status, _, err = asr(*asked, "--resume")
    assert status == 1 and "last.state does not fit" in err and err.count("\n") == 1


def test_curves_for_tensorboard(data: Path, tmp_path: Path) -> None:
    train(tiny(data, "train.evaluate_every=2", "train.updates=5"), tmp_path, observers=[TensorBoard()])
    found = scalars(tmp_path)
    for name in (
        "loss/characters",
        "loss/middle characters",
        "learning rate",
        "gradient/norm",
        "speed/audio-seconds per second",
        "speed/share of time waiting for data",
        "gradient by layer/stem",
        "gradient by layer/layer 1",
        "gradient by layer/layer 2",
        "gradient by layer/heads",
    ):
        assert len(found[name]) == 5 and all(map(math.isfinite, found[name])), name
    for name in (
        "dev error/characters",
        "dev error/words",
        "gradient by time distance/0 frames",
        "gradient by time distance/5 frames",
        "gradient by time distance/25 frames",
    ):
        assert len(found[name]) == 3 and all(map(math.isfinite, found[name])), name
    parts = [found[f"gradient by layer/{name}"][0] for name in ("stem", "layer 1", "layer 2", "heads")]
    assert 0.5 * found["gradient/norm"][0] < math.hypot(*parts) <= found["gradient/norm"][0] * 1.001  # before clipping
    assert found["gradient by time distance/0 frames"] == [1.0] * 3
    assert found["learning rate"][0] == pytest.approx(1.5e-3) and found["dev error/characters"][0] > 0


def test_what_is_left_out_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = prepare_clips(tmp_path / "clips", SHORT[:4], ())
    victim, *_ = load_prepared(folder, "train")
    Path(victim.recording.sources[0].source).write_bytes(b"[/noise]")
    (tmp_path / "words.txt").write_text("the\tDH AH\n", "utf-8")
    run = train(
        tiny(
            data,
            f'data.train=["{folder}"]',
            f"data.lexicon={tmp_path / 'words.txt'}",
            "augment.gain=6",
            "augment.speed=1.0",
        ),
        tmp_path / "run",
        observers=[TrainingDisplay()],
    )
    said = capsys.readouterr().err
    assert run.failed == {victim.id} and said.count(f"left out {victim.id}: ") >= 1
    assert "1 clips could not be read and were left out." in said
    assert "words such as 'a' have no pronunciation" in said
    assert f"checkpoints: {tmp_path / 'run' / 'last'}, {tmp_path / 'run' / 'best'}\n" in said  # in one line


def test_best_is_the_one_with_the_fewest_errors(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([0.5, 0.3, 0.4, 0.3, 0.9])
    monkeypatch.setattr(training, "score", lambda *_: {"characters": next(errors), "words": 1.0})
    train(tiny(data, "train.updates=5", "train.evaluate_every=1"), tmp_path)
    assert checkpoint.load(tmp_path / "best").config.training["updates"] == 4
    assert checkpoint.load(tmp_path / "last").config.training["updates"] == 5
    assert state(tmp_path)["numbers"]["best"] == 0.3


def test_nothing_stays_behind(data: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stop = Diary(lambda run: os.kill(os.getpid(), signal.SIGTERM) if run.update == 2 else None)
    run = train(tiny(data, "train.updates=99", "data.workers=1", "data.batch_seconds=4"), tmp_path, observers=[stop])
    assert run.update == 2 and state(tmp_path)["numbers"]["update"] == 2
    assert not multiprocessing.active_children()  # in the middle of an epoch
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_it_runs_in_any_thread(data: Path, tmp_path: Path) -> None:
    done: list[TrainingState] = []
    thread = threading.Thread(target=lambda: done.append(train(tiny(data), tmp_path)))
    thread.start()
    thread.join()
    assert done and done[0].update == 4


def test_a_finished_run_that_is_resumed_changes_nothing(data: Path, tmp_path: Path) -> None:
    train(tiny(data), tmp_path)
    before = (tmp_path / "last.state").read_bytes()
    assert train(tiny(data), tmp_path, resume=True).update == 4
    assert (tmp_path / "last.state").read_bytes() == before


def test_memory_stays_over_epochs(data: Path, tmp_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    seen: list[int] = []
    recipe = tiny(data, "data.batch_seconds=40", "train.updates=60")  # an epoch an update
    train(recipe, tmp_path, observers=[Diary(lambda run: seen.append(resident()))])
    assert seen[-1] - seen[20] < 20e6
