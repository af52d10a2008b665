"""`asr models`: what is installed, and a checkpoint that others packed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from asr.model.checkpoint import find
from tests.conftest import CLIPS, Asr


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "rill" / "checkpoints"


def test_the_shipped_checkpoint_is_listed(asr: Asr) -> None:
    code, listed, _ = asr("models")
    shipped = find()
    assert code == 0 and "* en-small" in listed and "CC BY-SA 4.0" in listed and f"{shipped}\n" in listed
    assert f"card {shipped / 'MODEL_CARD.md'}" in listed


@pytest.mark.model
def test_one_that_is_added_transcribes_by_its_name(asr: Asr, tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "greedy"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "stem.onnx", "encoder.onnx"):
        shutil.copy(find() / name, folder)
    assert asr("doctor", "--renew", "--checkpoint", folder)[0] == 0  # the language models are left out on purpose
    archive = shutil.make_archive(str(tmp_path / "packed"), "gztar", tmp_path, "greedy")
    code, said, _ = asr("models", "add", archive, "--name", "mine")
    assert code == 0 and f"mine  en, 15 MB, CC BY-SA 4.0\n    {data / 'mine'}\n    no card\n" in said
    code, text, _ = asr("transcribe", "--no-lm", "--checkpoint", "mine", CLIPS / "kathleen-0.flac")
    assert code == 0 and "nothing on the rock" in text.lower()
    code, listed, _ = asr("models")
    assert code == 0 and str(data / "mine") in listed


def test_a_broken_one_does_not_hide_the_others(asr: Asr, data: Path) -> None:
    (data / "broken").mkdir(parents=True)
    (data / "broken" / "config.json").write_text(json.dumps({"format": 99}))
    code, listed, _ = asr("models")
    assert code == 1 and "en-small" in listed and "format 99 is not 1" in listed


def test_what_cannot_be_added_is_one_sentence(asr: Asr) -> None:
    code, _, said = asr("models", "add", "nowhere.zip")
    assert code == 1 and said == "asr: There is no 'nowhere.zip': give a checkpoint's folder or archive.\n"
