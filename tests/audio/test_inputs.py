"""What a user names as recordings, and where each one's transcript goes."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.inputs import check_places, expand
from asr.errors import RillError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """talk.wav and talk.flac (another length), a/deep/one.ogg, hidden files and a text beside them."""
    for number, name in enumerate(["talk.wav", "talk.flac", "a/deep/one.ogg", ".hidden.wav", ".cache/b.wav"], 1):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(16_000 * number), 16_000)
    (tmp_path / "notes.txt").write_text("no sound")
    return tmp_path


def test_folders_patterns_and_doubles(folder: Path) -> None:
    found, errors = expand([str(folder)])
    assert list(found) == [str(folder / name) for name in ("talk.flac", "talk.wav", "a/deep/one.ogg")] and not errors
    assert expand([f"{folder}/*.wav", str(folder / "talk.wav")]) == ({str(folder / "talk.wav"): Path("talk")}, [])
    assert list(expand([f"{folder}/**/o?e.ogg"])[0]) == [str(folder / "a/deep/one.ogg")]
    bracketed = folder / "[1].wav"
    bracketed.touch()
    assert expand([str(bracketed)]) == ({str(bracketed): Path("[1]")}, [])
    assert expand(["gone.wav"]) == ({}, ["gone.wav: no such file; check the path."])
    assert expand([str(folder / "a" / ".."), "gone*"])[1] == ["gone*: matches no file; check the path."]
    (folder / "empty").mkdir()
    assert expand([str(folder / "empty")])[1] == [f"{folder / 'empty'}: holds no audio or video files; check the path."]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_folders_named_pipes_are_left_out(folder: Path) -> None:
    """Reading one would wait for ever; who names it means it."""
    os.mkfifo(folder / "pipe.wav")
    (folder / "broken.wav").symlink_to("gone")
    for name in (f"{folder}", f"{folder}/*.wav"):
        found = [Path(path).name for path in expand([name])[0]]
        assert "pipe.wav" not in found and "broken.wav" in found and "talk.wav" in found
    assert list(expand([str(folder / "pipe.wav")])[0]) == [str(folder / "pipe.wav")]


def test_places(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are mirrored, from where a folder or a pattern was named; what else is named changes nothing."""
    assert set(expand([str(folder)])[0].values()) == {Path("talk"), Path("a/deep/one")}
    assert list(expand([f"{folder}//"])[0].values()) == [Path("talk"), Path("talk"), Path("a/deep/one")]
    assert expand([f"{folder}/*/deep/*.ogg"])[0] == {str(folder / "a/deep/one.ogg"): Path("a/deep/one")}
    named = [str(folder / name) for name in ("talk.wav", "a/deep/one.ogg", "a/b.c.mp3")]
    Path(named[2]).touch()
    assert list(expand(named)[0].values()) == [Path("talk"), Path("one"), Path("b.c")]
    assert expand(["-"])[0] == {"-": Path("stdin")}
    monkeypatch.chdir(folder / "a")
    Path(named[2]).unlink()
    assert list(expand(["."])[0].values()) == [Path("deep/one")] == list(expand(["**/*.ogg"])[0].values())
    assert list(expand(["../*.wav"])[0].values()) == [Path("talk")]


def test_names_as_long_as_file_systems_allow(tmp_path: Path) -> None:
    longest = [str(tmp_path / f"{'é' * 120}{end}.wav") for end in ("", "1234567890a", "1234567890b")]
    for path in longest:
        Path(path).touch()
    names = expand(longest)[0]
    assert names[longest[0]] == Path("é" * 120)
    for name in names.values():
        (tmp_path / f"{name}.json").touch()
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_two_recordings_of_one_place() -> None:
    check_places({"/x/a.mp3": Path("a"), "/x/b.mp3": Path("b")})
    with pytest.raises(RillError, match=r"/x/a\.mp3 and /x/A\.wav would both become A: choose one"):
        check_places({"/x/a.mp3": Path("a"), "/x/A.wav": Path("A")})
