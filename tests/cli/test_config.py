"""Defaults of the user's own: which commands take them, and what is wrong with a file."""

import os
from pathlib import Path

import pytest
from typer.main import get_command

from asr.cli.config import defaults, path
from asr.cli.main import app
from asr.errors import RillError
from tests.conftest import CLIPS, Asr

COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def write(text: str) -> Path:
    path().parent.mkdir(parents=True, exist_ok=True)
    path().write_text(text, encoding="utf-8")
    return path()


@pytest.fixture(autouse=True)
def no_file_is_left():
    file = path()
    yield
    file.unlink(missing_ok=True)


def test_which_commands_take_a_default() -> None:
    assert path() == Path(os.environ["XDG_CONFIG_HOME"], "rill", "config.toml")
    assert not any(defaults(COMMANDS).values())
    write('no-lm = true\nmax_sessions = 8\n[transcribe]\nno_lm = false\nhotword = ["rill"]\n')
    found = {name: values for name, values in defaults(COMMANDS).items() if values}
    assert found["transcribe"] == {"no_lm": False, "hotword": ["rill"]}
    assert found["listen"] == {"no_lm": True} and found["serve"] == {"no_lm": True, "max_sessions": 8}
    assert "doctor" not in found


def test_the_command_line_wins(asr: Asr, recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.inference.files.Options.load", lambda options: recognizer)
    write('[transcribe]\nformat = "tsv"\n')
    clip = CLIPS / "kathleen-0.flac"
    assert asr("transcribe", clip)[1].startswith("start\tend\ttext\n")
    assert asr("transcribe", clip, "--format", "vtt")[1].startswith("WEBVTT")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("latenzy = 1", "no command has the option 'latenzy'"),
        ("[transcripe]", "there is no command 'transcripe'"),
        ("[listen]\njobs = 2", "'asr listen' has no option 'jobs'"),
        ("[transcribe]\nplain = 'yes'", "'transcribe.plain' is true or false, not 'yes'"),
        ("hotword = 'rill'", "'hotword' is a list, not 'rill'"),
        ("[transcribe]\nlatency = true", "'transcribe.latency' is a text or a number, not True"),
        ("latency =", "cannot be read as TOML (Invalid value (at end of document))"),
    ],
)
def test_what_is_wrong_is_said(asr: Asr, text: str, sentence: str) -> None:
    file = write(text)
    status, out, err = asr("doctor")
    assert (status, out) == (1, "") and err.startswith(f"asr: {file}") and sentence in err and err.count("\n") == 1
    with pytest.raises(RillError):
        defaults(COMMANDS)


def test_a_user_without_a_home_folder_has_no_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "HOME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it gives where nothing is known
    assert not any(defaults(COMMANDS).values())
