"""Typing into the program in front: a real terminal on a real X server, and what happens where nothing can type."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from asr.cli import keyboard
from asr.cli.keyboard import Keyboard
from asr.errors import RillError
from asr.text.results import Final, Partial, Word
from tests.conftest import CLIPS, Asr
from tests.support.serving import until

NEEDED = ("Xvfb", "xterm", "xdotool")


def final(*words: str) -> Final:
    return Final.of([Word(word, 0.0, 1.0, 1.0) for word in words])


@pytest.fixture
def no_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def display(no_desktop: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "640x480x24"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout
        monkeypatch.setenv("DISPLAY", f":{int(server.stdout.readline())}")
        yield
        server.terminate()


@pytest.mark.e2e
@pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}: apt install xvfb xterm …")
def test_what_is_said_arrives_in_the_terminal_in_front(display: None, asr: Asr, tmp_path: Path) -> None:
    typed = tmp_path / "typed.txt"
    shell = f"stty -icanon; touch {typed}; exec cat > {typed}"
    with subprocess.Popen(["xterm", "-geometry", "100x40+0+0", "-e", "sh", "-c", shell]) as terminal:
        until(typed.exists)
        code, out, said = asr("listen", "--type", "--json", "--speed", 0, "--input", CLIPS / "kathleen-0.flac")
        assert code == 0, said
        until(lambda: typed.read_text().endswith(" "))
        terminal.terminate()
    assert typed.read_text() == "There was nothing on the rock. "
    assert '"There was nothing on the rock."' in out


@pytest.fixture
def programs(no_desktop: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is searched for programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.mark.e2e
def test_wayland_falls_back_where_its_desktop_forbids_it(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    monkeypatch.setenv("DISPLAY", ":0")  # XWayland's: xdotool would reach its programs alone
    program(programs, "wtype", "echo 'Compositor does not support the virtual keyboard protocol' >&2; exit 1")
    with pytest.raises(RillError, match=r"virtual keyboard protocol; ydotool is not installed\).*ydotool\.$"):
        keyboard.keyboard()
    program(programs, "ydotool", f'/bin/cat >> {tmp_path}/typed; echo "$@" >> {tmp_path}/arguments')
    keys = keyboard.keyboard()
    keys.event(final("naïve\n\x1b", "text"))
    keys.close()
    assert (tmp_path / "typed").read_text() == "naïve text "  # no Enter, no Escape
    assert (tmp_path / "arguments").read_text() == "type --file -\n" * 2  # to type nothing, and the text


@pytest.mark.e2e
def test_a_program_that_fails_later_is_named(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    program(programs, "xdotool", "read text; [ -z \"$text\" ] || { echo 'the screen is locked' >&2; exit 1; }")
    keys = keyboard.keyboard()
    keys.event(final("words"))
    with pytest.raises(RillError, match="xdotool cannot type: the screen is locked"):
        keys.close()
    with pytest.raises(RillError, match="the screen is locked"):
        keys.event(final("more"))


def test_without_a_desktop_it_says_so_before_loading(no_desktop: None, asr: Asr) -> None:
    code, _, said = asr("listen", "--type", "--input", "nowhere.wav")
    assert code == 1 and said.startswith("asr: There is no desktop to type into")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_pynput_types(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    typed: list[str] = []
    fake = types.ModuleType("pynput.keyboard")
    fake.Controller = lambda: types.SimpleNamespace(type=typed.append)  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setitem(sys.modules, "pynput", types.ModuleType("pynput"))
    monkeypatch.setitem(sys.modules, "pynput.keyboard", fake)
    keys = keyboard.keyboard()
    keys.event(final("one"))
    keys.event(final("two"))
    keys.close()
    assert typed == ["one ", "two "]


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_without_pynput_the_extra_is_named(platform: str, asr: Asr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setitem(sys.modules, "pynput.keyboard", None)
    monkeypatch.setitem(sys.modules, "pynput", None)
    code, _, said = asr("listen", "--type", "--input", "nowhere.wav")
    assert code == 1 and re.search(r"pip install 'rill-asr\[type\]'", said)


def test_recognition_does_not_wait_for_the_keyboard() -> None:
    may_type, typed = threading.Event(), []

    def write(text: str) -> None:
        assert may_type.wait(60)
        typed.append(text)

    keys = Keyboard(write)
    keys.event(final("one"))
    keys.event(Partial(final("maybe").words, 1.0))
    keys.event(final("two"))
    assert typed == []
    may_type.set()
    keys.close()
    assert typed == ["one ", "two "]
