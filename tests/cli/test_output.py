"""Whatever is printed: any terminal can show it, and none obeys it."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.cli.output import accept_any_text, visible
from tests.conftest import CLIPS, Asr

ANY = st.text(st.characters(exclude_categories=()), max_size=20)  # half surrogate pairs, too
ODD = "caf\udce9 \x1b[31m\n\u2603.flac"  # a name that is no UTF-8, with an escape sequence


def printed(text: str, encoding: str) -> str:
    """What is read by whoever knows the encoding."""
    file = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding))
        accept_any_text()
        print(text, end="", flush=True)
        return file.getvalue().decode(encoding)


@given(ANY, st.sampled_from(["utf-8", "ascii", "cp1252"]))
def test_printing_never_fails_and_json_comes_back(text: str, encoding: str) -> None:
    assert json.loads(printed(json.dumps(text, ensure_ascii=False), encoding)) == text


def test_what_an_encoding_lacks_is_escaped() -> None:
    assert printed("café ☃ 😀", "ascii") == "caf\\u00e9 \\u2603 \\ud83d\\ude00"
    assert printed("café ☃", "cp1252") == "café \\u2603"
    assert printed("café ☃", "utf-8") == "café ☃"


@given(ANY)
def test_a_line_is_one_line_without_controls(text: str) -> None:
    assert visible(text).isprintable() or not any(each < " " or "\x7f" <= each < "\xa0" for each in visible(text))
    assert len(visible(text).splitlines()) <= 1


@pytest.mark.skipif(sys.platform != "linux", reason="such names are Linux's")
def test_names_of_files_are_shown_and_not_obeyed(asr: Asr, recognizer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("asr.inference.files.Options.load", lambda options: recognizer)
    for name in (ODD, "b.flac"):
        shutil.copy(CLIPS / "kathleen-0.flac", tmp_path / name)
    (tmp_path / "no\x07sound.wav").write_bytes(b"no sound")
    status, out, err = asr("transcribe", tmp_path)
    assert status == 1 and "caf\\udce9 \\u001b[31m\\u000a\u2603.flac <==" in out and "\\u0007" in err
    assert "\x1b" not in out + err and "\x07" not in out + err
    lines = asr("transcribe", tmp_path, "--format", "json")[1].splitlines()
    assert {Path(json.loads(line)["source"]).name for line in lines} == {ODD, "b.flac"}
