"""A progress bar on stderr for work that takes more than a few seconds; nothing where stderr is not a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

PATIENCE_S = 3.0  # until the bar appears
MAX_NAME_CHARACTERS = 40  # before the bar


class AudioProgress:
    """Counts seconds of audio and shows how fast they go: RTF is the real-time factor, wall time over audio.

    `total`: seconds in all, None where that is unknown; the bar then only moves.
    """

    def __init__(self, total: float | None) -> None:
        console = Console(stderr=True)
        self.shown = console.is_terminal
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("RTF {task.fields[rtf]:.3f}"),
            TimeRemainingColumn(),
        )
        # What is printed meanwhile goes above the bar, unless it goes to a file.
        self.bar = Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())
        self.task = self.bar.add_task("", total=total, rtf=0.0)
        self.begin = time.monotonic()
        self.seconds = 0.0

    def add(self, name: str, seconds: float) -> None:
        """So much more audio is done; `name` is what is worked on."""
        self.seconds += seconds
        passed = time.monotonic() - self.begin
        if self.shown and passed > PATIENCE_S:
            self.bar.start()
        short = name if len(name) <= MAX_NAME_CHARACTERS else f"…{name[1 - MAX_NAME_CHARACTERS :]}"
        self.bar.update(self.task, completed=self.seconds, description=short, rtf=passed / max(self.seconds, 1e-3))

    def __enter__(self) -> AudioProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar.live.is_started:  # else it would print an empty line
            self.bar.stop()
