"""Files that appear whole or not at all."""

from pathlib import Path

import pytest

from asr.atomic import replacing


def test_the_new_file_takes_the_old_one_s_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for text in ("old", "new"):
        with replacing(path) as part:
            assert part.parent == path.parent and not part.exists()
            part.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text and list(path.parent.iterdir()) == [path]


def test_a_name_as_long_as_file_systems_allow(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    with replacing(path) as part:
        part.write_text("text")
    assert path.read_text() == "text"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match="No space left") as caught:
        fill(path)
    assert caught.value.filename == str(path) and not list(tmp_path.iterdir())


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(InterruptedError):
        interrupt(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        write_without_a_folder(path / "x" / "a.txt")
    assert caught.value.filename == str(path / "x" / "a.txt")


def interrupt(path: Path) -> None:
    with replacing(path) as part:
        part.write_text("half")
        raise InterruptedError


def fill(path: Path) -> None:
    with replacing(path) as part:
        part.symlink_to("/dev/full")
        part.write_text("text")


def write_without_a_folder(path: Path) -> None:
    with replacing(path) as part:
        part.parent.rmdir()
        part.write_text("a")
