"""Checkpoints from folders and archives of others: only a checkpoint's files come in, and no more than fits."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from asr.errors import CheckpointError
from asr.model import checkpoint, installed
from asr.model.installed import install
from tests.support.acoustic import small_checkpoint, small_model


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "rill" / "checkpoints"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound checkpoint among files that are none of it."""
    folder, small = tmp_path / "mine", small_checkpoint(small_model("lstm", 4))
    checkpoint.save(folder, small.config, small.stored)
    (folder / "MODEL_CARD.md").write_text("# mine")
    (folder / "run.sh").write_text("rm -rf /")
    (folder / "lexicon.txt").symlink_to("/etc/passwd")
    return folder


def zipped(folder: Path, inside: str = "") -> str:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            if not file.is_symlink():
                archive.write(file, f"{inside}{file.name}")
        link = zipfile.ZipInfo(f"{inside}lexicon.txt")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return str(path)


def tarred(folder: Path, inside: str = "") -> str:
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for file in folder.iterdir():
            archive.add(file, f"{inside}{file.name}")
    return str(path)


@pytest.mark.parametrize(
    "packed", [str, zipped, tarred, lambda f: zipped(f, "a/mine/"), lambda f: tarred(f, "./mine/")]
)
def test_it_is_found_by_its_name(folder: Path, data: Path, packed) -> None:
    source = packed(folder)
    assert install(source).path == data / "mine"
    assert {path.name for path in (data / "mine").iterdir()} == {"config.json", "model.safetensors", "MODEL_CARD.md"}
    assert checkpoint.load("mine").path == data / "mine"
    assert [path.name for path in installed.installed()] == ["en-small", "mine"]
    with pytest.raises(CheckpointError, match="a checkpoint 'mine' already"):
        install(source)
    install(source, "other")
    assert sorted(os.listdir(data)) == ["mine", "other"]


@pytest.mark.parametrize("name", ["../mine", ".mine", "a/b", "en-small", "x" * 65])
def test_a_name_that_could_lead_elsewhere_is_refused(folder: Path, data: Path, name: str) -> None:
    source = zipped(folder)
    with pytest.raises(CheckpointError, match="--name"):
        install(source, name)
    assert not data.exists()


def test_what_unpacks_to_too_much_is_refused(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "ngram.safetensors").write_bytes(bytes(20_000_000))
    for source in (zipped(folder), tarred(folder)):
        with pytest.raises(CheckpointError, match="unpacks to more than"):
            install(source)
    monkeypatch.setattr(installed, "MAX_BYTES", 100)
    with pytest.raises(CheckpointError, match="unpacks to more than"):
        install(str(folder))
    assert not list(data.iterdir())  # nothing is left of them


def test_what_is_no_checkpoint_is_named(folder: Path, tmp_path: Path, data: Path) -> None:
    empty, damaged, text = tmp_path / "empty.zip", tmp_path / "damaged.tar.gz", tmp_path / "talk.txt"
    zipfile.ZipFile(empty, "w").close()
    damaged.write_bytes(Path(tarred(folder)).read_bytes()[:500])
    text.write_text("no checkpoint")
    two = tmp_path / "two.tgz"
    with tarfile.open(two, "w:gz") as archive:
        for name in ("a/config.json", "b/config.json"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    (folder / "model.safetensors").write_bytes(b"cut")
    for source, problem in [
        (empty, "holds 0 checkpoints"),
        (two, "holds 2 checkpoints"),
        (damaged, "damaged"),
        (text, "neither a folder nor an archive"),
        (tmp_path / "nowhere", "There is no"),
        (folder, "has 3 bytes instead of"),
        (tmp_path, "config.json"),
    ]:
        with pytest.raises(CheckpointError, match=problem):
            install(str(source), "new")
    assert not list(data.iterdir())
