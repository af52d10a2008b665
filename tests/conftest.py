"""What many tests share: markers, the shipped recognizer, real clips, one thread."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from asr.model.hardware import set_threads
from asr.text.normalize import normalize

SHARED = Path(__file__).parents[2] / "shared"  # speech and reference files that are too large for the repository
CLIPS = Path(__file__).parent / "clips"
RATE = 16_000

settings.register_profile("here", deadline=None, derandomize=True)  # shared machines have no even pace
settings.load_profile("here")

if not find_spec("torch"):  # Rill without extras: what recognizing needs is tested, by what it needs
    collect_ignore = ["training", "server", "recipes", "docs", "e2e"]
    collect_ignore += [
        f"model/test_{name}.py" for name in ("acoustic", "checkpoint", "export", "installed", "integrity")
    ]
    collect_ignore += ["audio/test_features.py", "evaluation/test_scoring.py", "demo/test_hosting.py"]
    collect_ignore += [f"cli/test_{name}.py" for name in ("captions", "demo", "keyboard", "lm", "models", "punctuate")]
    collect_ignore += [f"decoding/test_{name}.py" for name in ("beam", "neural_lm", "rescoring")]
    collect_ignore += [f"inference/test_{name}.py" for name in ("steps", "stream")]


@dataclass(frozen=True)
class Clip:
    """A real utterance: its file, mono float32 samples at 16 kHz, and what is said in it."""

    path: Path
    samples: np.ndarray
    text: str


# Fixtures that give a test its marker, whether it uses them itself or through others.
MARKERS = {"e2e": {"server", "service", "nodes"}, "model": {"recognizer", "greedy"}}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test has one of the markers unit, model and e2e: its own, that of its fixtures, or unit."""
    for item in items:
        if not any(item.get_closest_marker(name) for name in MARKERS):
            used = set(getattr(item, "fixturenames", ()))
            item.add_marker(next((name for name, fixtures in MARKERS.items() if fixtures & used), "unit"))


@pytest.fixture(autouse=True)
def no_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test starts none: one that does needs the marker e2e."""

    def refuse(process: object, command: object, *_: object, **__: object) -> None:
        raise AssertionError(f"a unit test starts {command}: mark it e2e")

    if request.node.get_closest_marker("unit"):
        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    else:
        request.getfixturevalue("compiled_search")


@pytest.fixture(scope="session")
def compiled_search() -> None:
    """The search is compiled before any process announces that it has to."""
    from asr.decoding.compiling import library

    library()


@pytest.fixture(autouse=True)
def no_settings_of_the_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither defaults nor checkpoints of whoever runs the tests."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path_factory.getbasetemp() / "home" / name))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    set_threads(1)
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clips():
    return read_clips()


def read_clips() -> list[Clip]:
    from asr.audio.reading import read_blocks

    entries = [json.loads(line) for line in (CLIPS / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        Clip(
            CLIPS / entry["audio"], np.concatenate(list(read_blocks(CLIPS / entry["audio"]))), normalize(entry["text"])
        )
        for entry in entries
    ]


@pytest.fixture(scope="session")
def recognizer():
    """The shipped checkpoint with its language model, raw words; never changed by a test."""
    import asr

    return asr.load(device="cpu", threads=1, punctuate=False)


@pytest.fixture(scope="session")
def greedy():
    """The shipped checkpoint without language model, raw words."""
    import asr

    return asr.load(lm=False, device="cpu", threads=1, punctuate=False)


Asr = Callable[..., tuple[int, str, str]]


@pytest.fixture
def asr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Asr:
    """Runs `asr` in this process: exit status, standard output, stderr."""
    from asr.cli.main import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["asr", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        return leaving.value.code or 0, *capsys.readouterr()

    return run
