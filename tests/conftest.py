"""What many tests share: the shipped recognizer, real clips, one thread."""
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from asr.text.normalize import normalise

SHARED = Path(__file__).parents[2] / "shared"  # speech and reference files that are too large for the repository
CLIPS = Path(__file__).parent / "clips"
RATE = 16_000

settings.register_profile("here", deadline=None, derandomize=True)  # shared machines have no even pace
settings.load_profile("here")


@dataclass(frozen=True)
class Clip:
    """A real utterance: its file, mono float32 samples at 16 kHz, and what is said in it."""

    path: Path
    samples: np.ndarray
    text: str


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clips():
    return read_clips()


def read_clips() -> list[Clip]:
    from asr.audio.reading import read_blocks

    entries = [json.loads(line) for line in (CLIPS / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    return [Clip(CLIPS / entry["audio"], np.concatenate(list(read_blocks(CLIPS / entry["audio"]))),
                 normalise(entry["text"])) for entry in entries]


@pytest.fixture(scope="session")
def recognizer():
    """The shipped checkpoint with its language model; never changed by a test."""
    import asr

    return asr.load(device="cpu", threads=1)


@pytest.fixture(scope="session")
def greedy():
    """The shipped checkpoint without language model."""
    import asr

    return asr.load(lm=False, device="cpu", threads=1)


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
