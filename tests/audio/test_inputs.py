"""What a user names as recordings, and where each one's transcript goes."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asr.audio.inputs import expand, output_names


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
    assert found == [str(folder / name) for name in ("talk.flac", "talk.wav", "a/deep/one.ogg")] and not errors
    assert expand([f"{folder}/*.wav", str(folder / "talk.wav")]) == ([str(folder / "talk.wav")], [])
    assert expand([f"{folder}/**/o?e.ogg"])[0] == [str(folder / "a/deep/one.ogg")]
    bracketed = folder / "[1].wav"
    bracketed.touch()
    assert expand([str(bracketed)]) == ([str(bracketed)], [])
    assert expand(["gone.wav"]) == (["gone.wav"], [])
    assert expand([str(folder / "a" / ".."), "gone*"])[1] == ["gone*: matches no file; check the path."]
    (folder / "empty").mkdir()
    assert expand([str(folder / "empty")])[1] == [f"{folder / 'empty'}: holds no audio or video files; check the path."]


def test_output_names() -> None:
    assert output_names(["/x/a.mp3", "/x/b.wav", "-"]) == {
        "/x/a.mp3": Path("a"),
        "/x/b.wav": Path("b"),
        "-": Path("stdin"),
    }
    assert output_names(["/x/a.mp3", "/x/A.wav"]) == {"/x/a.mp3": Path("a.mp3"), "/x/A.wav": Path("A.wav")}
    assert output_names(["/x/a.mp3", "/y/a.mp3", "/y/b.wav"]) == {
        "/x/a.mp3": Path("x/a.mp3"),
        "/y/a.mp3": Path("y/a.mp3"),
        "/y/b.wav": Path("b"),
    }


def test_names_as_long_as_file_systems_allow(tmp_path: Path) -> None:
    longest = [str(tmp_path / f"{'é' * 120}{end}.wav") for end in ("", "1234567890a", "1234567890b")]
    names = output_names(longest)
    assert names[longest[0]] == Path("é" * 120)
    for name in names.values():
        (tmp_path / f"{name}.json").touch()
    assert len(list(tmp_path.iterdir())) == 3


@given(
    st.lists(
        st.text("ab./", min_size=1, max_size=8).map(lambda name: str(Path("/t", *name.split("/"), "a.b"))),
        unique_by=lambda path: str(Path(path).resolve()),
    )
)
def test_output_names_never_collide(paths: list[str]) -> None:
    names = output_names(paths)
    assert len(set(names.values())) == len(paths)
    assert all(not name.is_absolute() and ".." not in name.parts for name in names.values())
