"""Typing into the program in front, as a keyboard would.

    Wayland            wtype, where the desktop lets programs type (Sway, Hyprland, KDE), else ydotool
    X11                xdotool
    macOS, Windows     the package pynput

Each of the Linux programs is asked to type nothing first: those that cannot type say so before anybody has spoken.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from asr.errors import RillError

if TYPE_CHECKING:
    from asr.inference.recognizer import Event

TIMEOUT_S = 60  # of one text
PROGRAMS = {
    "wtype": ("wtype", "-"),
    "ydotool": ("ydotool", "type", "--file", "-"),
    "xdotool": ("xdotool", "type", "--clearmodifiers", "--file", "-"),
}


class Keyboard:
    """Types finals, one after another, on a thread of its own; `write` types one text."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self._pool = ThreadPoolExecutor(1, "keyboard")
        self._last: Future[None] | None = None

    def event(self, event: Event) -> None:
        """Raises RillError where an earlier text could not be typed."""
        from asr.text.results import Final

        if not isinstance(event, Final):
            return
        if self._last and self._last.done():
            self._last.result()
        # A key such as Enter or Tab would do something in the program in front.
        printable = "".join(character for character in event.text if character.isprintable())
        self._last = self._pool.submit(self.write, f"{printable} ")

    def close(self) -> None:
        """Types what waits. Raises RillError where that fails."""
        self._pool.shutdown()
        if self._last:
            self._last.result()


def keyboard() -> Keyboard:
    """What can type on this computer. Raises RillError where nothing can."""
    if sys.platform in ("win32", "darwin"):
        from pynput.keyboard import Controller

        return Keyboard(Controller().type)
    wanted = ["wtype", "ydotool"] if os.environ.get("WAYLAND_DISPLAY") else []
    wanted += ["xdotool"] if os.environ.get("DISPLAY") and not wanted else []
    if not wanted:
        raise RillError("There is no desktop to type into: start `asr listen --type` in a terminal of your desktop.")
    problems = []
    for name in wanted:
        if not shutil.which(name):
            problems.append(f"{name} is not installed")
            continue
        try:
            run_program(PROGRAMS[name], "")
        except RillError as error:
            problems.append(str(error).rstrip("."))
            continue
        return Keyboard(partial(run_program, PROGRAMS[name]))
    raise RillError(f"Nothing can type on this desktop ({'; '.join(problems)}): install {' or '.join(wanted)}.")


def run_program(command: tuple[str, ...], text: str) -> None:
    """Raises RillError. Ctrl-C in the terminal does not reach the program, so that it types the last words."""
    try:
        done = subprocess.run(
            command,
            input=text,
            text=True,
            encoding="utf-8",
            env=os.environ | {"LC_ALL": "C.UTF-8"},
            capture_output=True,
            timeout=TIMEOUT_S,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RillError(f"{command[0]} did not type a text within {TIMEOUT_S} s.") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"status {done.returncode}"
        raise RillError(f"{command[0]} cannot type: {said[:200]}.")
