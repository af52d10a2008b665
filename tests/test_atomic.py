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


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError) as caught, replacing(path / "x" / "a.txt") as part:
        part.parent.rmdir()
        part.write_text("a")
    assert caught.value.filename == str(path / "x" / "a.txt")
