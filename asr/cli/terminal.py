"""What a listener sees: a screen that is rewritten in place, or one JSON object a line for programs.

Both take `event` from the session's thread, the rest from the main one.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from asr.cli import output
from asr.inference.live import Stats
from asr.inference.recognizer import Event
from asr.text.results import Final, Partial, Word

UNSURE = 0.5  # confidence below which a final's words are dim
METER_CHARACTERS = 16
QUIETEST_DB = -60.0  # of full scale, at the level meter's left end
LOUD_DB, CLIPPED_DB = -6.0, -0.5  # of full scale


class Display(Protocol):
    def event(self, event: Event, lag: float) -> None: ...
    def refresh(self, stats: Stats, overflows: int) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """Events on standard output as `{"type", "text", "start", "end", "words", "lag"}`, each flushed at once; notes on
    standard error. A partial has no `end`."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def event(self, event: Event, lag: float) -> None:
        line = json.dumps(event.to_dict() | {"lag": round(lag, 3)}, ensure_ascii=False)
        self._out.write(line + "\n")
        self._out.flush()

    def refresh(self, stats: Stats, overflows: int) -> None:
        pass

    def note(self, text: str) -> None:
        output.note(text)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")

    def close(self) -> None:
        pass


class Screen:
    """Finals as lines that scroll away; below them the partial and one line of level and lag, rewritten in place."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._partial: Partial | None = None
        self._status = Text()
        self._live = Live(
            console=self.console,
            auto_refresh=False,
            transient=True,
            vertical_overflow="crop",
            get_renderable=self._render,
        )
        self._live.start()

    def event(self, event: Event, lag: float) -> None:
        if isinstance(event, Final):
            self._partial = None
            self.console.print(_row(event.start, _shaded(event.words), "green"))
        else:
            self._partial = event if event.words else None
        self._live.refresh()

    def refresh(self, stats: Stats, overflows: int) -> None:
        self._status = status_line(stats, overflows)
        self._live.refresh()

    def note(self, text: str) -> None:
        self.console.print(escape(output.visible(text)), style="dim")

    def warn(self, text: str) -> None:
        self.console.print(escape(output.visible(text)), style="yellow")

    def close(self) -> None:
        self._partial, self._status = None, Text()
        self._live.stop()

    def _render(self) -> Group:
        partial = self._partial
        if partial is None:
            return Group(self._status)
        return Group(_row(partial.words[0].start, _firmed(partial), "dim"), self._status)


def status_line(stats: Stats, overflows: int) -> Text:
    """One line: what was lost, if anything, the lag, and the level as a bar and in dB of full scale."""
    level = decibels(stats.level)
    filled = round(METER_CHARACTERS * (1 - max(level, QUIETEST_DB) / QUIETEST_DB))
    shown = f" {level:4.0f} dB" if stats.level else "  silent"
    color = "red" if level >= CLIPPED_DB else "yellow" if level >= LOUD_DB else "green"
    lost = f"  {overflows} overflow{'s' * (overflows > 1)}" if overflows else ""
    lost += f"  {stats.dropped:.1f} s lost" if stats.dropped else ""
    return Text.assemble(
        ("● ", "red"),
        clock(stats.heard),
        (lost, "bold red"),
        "  lag ",
        (f"{stats.lag:.1f} s", "bold red" if stats.behind else ""),
        "  ",
        ("━" * filled, color),
        ("━" * (METER_CHARACTERS - filled), "bright_black"),
        shown,
        no_wrap=True,
        overflow="ellipsis",
    )


def decibels(peak: float) -> float:
    """A peak of 0–1 in dB of full scale."""
    return 20 * math.log10(peak) if peak > 0 else -math.inf


def clock(seconds: float) -> str:
    minutes, whole = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{whole:02}" if minutes >= 60 else f"{minutes}:{whole:02}"


def _row(start: float, text: Text, style: str) -> Table:
    """Time at the left; text that wraps stays right of it."""
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(justify="right", width=7, style=style)
    row.add_column()
    row.add_row(clock(start), text)
    return row


def _firmed(partial: Partial) -> Text:
    """Words that will not change any more as a final's, the others dim."""
    texts = [word.text for word in partial.words]
    firm, loose = " ".join(texts[: partial.stable]), " ".join(texts[partial.stable :])
    return Text(" ").join(Text(text, style=style) for text, style in ((firm, ""), (loose, "italic dim")) if text)


def _shaded(words: tuple[Word, ...]) -> Text:
    return Text(" ").join(Text(word.display, style="dim" if word.confidence < UNSURE else "") for word in words)
