"""What the documentation says is true: its Python runs, its commands parse, its files are there.

A Python snippet runs in a folder with a recording `talk.mp4` and the same as `talk.wav`; `blocks` are blocks of it, and
the addresses of `asr serve` are those of a running server.
"""

from __future__ import annotations

import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import soundfile
import typer

import asr
from asr.cli.main import app
from asr.server.listening import listen
from asr.text.writers import render
from tests.support.serving import running

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "samples" / "README.md",
    ROOT / "checkpoints" / "en-small" / "MODEL_CARD.md",
    *sorted((ROOT / "recipes").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PORTS = ("2700", "10300")  # where the snippets expect `asr serve`, and its Wyoming
SPEECH = ROOT / "tests" / "clips" / "kathleen-0.flac"
COMMANDS = typer.main.get_command(app)
OPERATORS = {"|", "&&", ";", ">"}


class Snippet(NamedTuple):
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def snippets(language: str) -> list[Snippet]:
    """The fenced blocks of a language, of all pages."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in re.finditer(r"^```(\w+)[^\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            if match.group(1) == language:
                found.append(Snippet(page, text.count("\n", 0, match.start()) + 1, language, match.group(2)))
    return found


def commands() -> Iterator[tuple[Snippet, list[str]]]:
    """Every simple command of the shell snippets: words, without comments, redirections and what is piped to it."""
    for snippet in snippets("bash"):
        for line in snippet.text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;>")
            lexer.commenters, lexer.whitespace_split = "#", True
            command: list[str] = []
            before = ""
            for word in [*lexer, ";"]:
                redirected, before = before == ">", word
                if redirected:
                    continue
                if word in OPERATORS:
                    if command:
                        yield snippet, command
                    command = []
                else:
                    command.append(word)


ALL_COMMANDS = [(snippet, words) for snippet, words in commands()]


def named(case: object) -> str:
    return " ".join(case) if isinstance(case, list) else str(case)


@pytest.mark.parametrize(("snippet", "words"), [each for each in ALL_COMMANDS if each[1][0] == "asr"], ids=named)
def test_asr_commands_parse(snippet: Snippet, words: list[str]) -> None:
    """The command exists, and takes these arguments and options. Nothing runs."""
    name, command, arguments = COMMANDS.resolve_command(typer.Context(COMMANDS), words[1:])
    assert command is not None
    command.make_context(name, arguments, resilient_parsing=False).close()


@pytest.mark.parametrize(("snippet", "words"), [each for each in ALL_COMMANDS if each[1][0] == "python"], ids=named)
def test_scripts_take_these_options(snippet: Snippet, words: list[str]) -> None:
    if words[1] == "-m":
        return
    source = (ROOT / words[1]).read_text("utf-8")
    own = words[2 : words.index("--")] if "--" in words else words[2:]
    for option in (word for word in own if word.startswith("--")):
        assert option in source, f"{words[1]} has no {option}"


@pytest.mark.parametrize(("snippet", "words"), [each for each in ALL_COMMANDS if each[1][0] == "pip"], ids=named)
def test_extras_that_are_installed_exist(snippet: Snippet, words: list[str]) -> None:
    for extras in re.findall(r"^\.\[(.*)\]$", "\n".join(words), re.MULTILINE):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_nothing_else_is_run_than_what_is_checked() -> None:
    """A command that this file does not know would go unchecked."""
    known = {
        "asr",
        "python",
        "pip",
        "pipx",
        "arecord",
        "serve",
        "your-program",
        "curl",
        "kubectl",
        "openssl",
        "podman",
        "sudo",
        "echo",
        "git",
        "cd",
        ".",
    }
    for snippet, words in ALL_COMMANDS:
        assert words[0] in known or (ROOT / words[0]).is_file() or "=" in words[0], f"{snippet}: {words[0]}"


@pytest.fixture(scope="module")
def server(recognizer):
    """The ports in the place of `PORTS`."""
    with closing(listen("127.0.0.1", 0)) as wyoming, running(recognizer, wyoming=wyoming) as here:
        yield str(here.port), str(wyoming.getsockname()[1])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a recording."""
    samples, rate = soundfile.read(SPEECH, dtype="int16")
    soundfile.write(tmp_path / "talk.wav", samples, rate)
    with av.open(str(tmp_path / "talk.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=rate)
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("snippet", snippets("python"), ids=str)
def test_python_runs(snippet: Snippet, folder: Path, recognizer: asr.Recognizer, monkeypatch, request, capsys) -> None:
    text = snippet.text
    if "127.0.0.1" in text:
        for documented, port in zip(PORTS, request.getfixturevalue("server"), strict=True):
            text = text.replace(documented, port)
    parameters = inspect.signature(asr.load)

    def load(*values: object, **named: object) -> asr.Recognizer:  # the same recognizer, since loading takes seconds
        parameters.bind(*values, **named)
        return recognizer

    monkeypatch.setattr(asr, "load", load)
    samples, _ = soundfile.read(folder / "talk.wav", dtype="int16")
    blocks = np.array_split(np.repeat(samples, 3), 20)  # at 48 kHz
    exec(compile(text, str(snippet), "exec"), {"__name__": "__main__", "blocks": blocks})
    assert capsys.readouterr().out.strip(), "the snippet prints nothing"


@pytest.mark.parametrize("snippet", [*snippets("json"), *snippets("toml")], ids=str)
def test_data_is_well_formed(snippet: Snippet) -> None:
    if snippet.language == "toml":
        tomllib.loads(snippet.text)
    else:
        try:
            json.loads(snippet.text)
        except json.JSONDecodeError:  # an object a line
            for line in snippet.text.splitlines():
                json.loads(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in re.findall(r"`((?:asr|benchmarks|tests|recipes|checkpoints|samples|scripts)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_mean_something_to_a_stranger(page: Path) -> None:
    text = page.read_text("utf-8")
    for phrase in ("../shared", "the release before this one", "this release"):
        assert phrase not in text, phrase


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


def test_the_readme_prints_what_the_first_command_prints() -> None:
    shown = next(each.text for each in snippets("text") if each.page == ROOT / "README.md")
    transcript = asr.load(device="cpu", threads=1).transcribe(ROOT / "samples" / "sentences.flac")
    assert shown == render(transcript, "txt")


@pytest.mark.e2e
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed (the extra `docs`)")
def test_the_site_builds(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
