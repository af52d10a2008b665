import io
import json

import pytest
from rich.console import Console, Group

from asr.cli.terminal import JsonLines, Screen, clock, status_line
from asr.inference.live import Stats
from asr.model.latency import Latency
from asr.text.results import Final, Partial, Word

WORDS = (Word("hello", 61.0, 61.4, 0.9), Word("wörld", 61.5, 62.0, 0.2))


def stats(**changes):
    usual = {"heard": 3725.0, "lag": 0.12, "dropped": 0.0, "level": 0.1, "latency": Latency(16, 8), "behind": False}
    return Stats(**usual | changes)


def test_json_lines_are_whole_and_flushed():
    class Counting(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed += 1

    out = Counting()
    display = JsonLines(out)
    display.event(Partial(WORDS, 60.5, stable=1), 0.1234)
    display.event(Final(WORDS, 61.0, 62.0), 0.0)
    partial, final = map(json.loads, out.getvalue().splitlines())
    assert partial == {
        "type": "partial",
        "text": "hello wörld",
        "start": 60.5,
        "stable": 1,
        "lag": 0.123,
        "words": [
            {"word": "hello", "start": 61.0, "end": 61.4, "confidence": 0.9},
            {"word": "wörld", "start": 61.5, "end": 62.0, "confidence": 0.2},
        ],
    }
    assert (final["type"], final["end"], final["lag"]) == ("final", 62.0, 0.0)
    assert out.flushed == 2


@pytest.mark.parametrize("width", [60, 100])
def test_status_fits_one_line(width):
    console = Console(file=io.StringIO(), width=width)
    console.print(Group(status_line(stats(dropped=12.3, behind=True), 17)))
    (line,) = console.file.getvalue().splitlines()
    assert line.startswith("● 1:02:05  17 overflows  12.3 s lost  lag 0.1 s")


def test_status_shows_losses_and_silence():
    assert "17 overflows" in status_line(stats(), 17).plain
    assert "12.3 s lost" in status_line(stats(dropped=12.3), 0).plain
    assert "1 overflow" in status_line(stats(), 1).plain and "lost" not in status_line(stats(), 1).plain
    assert "silent" in status_line(stats(level=0.0), 0).plain
    assert status_line(stats(level=1.0), 0).plain.count("━") == status_line(stats(level=1e-9), 0).plain.count("━")


def test_clock():
    assert [clock(seconds) for seconds in (0, 59.9, 61, 3600, 360_000)] == [
        "0:00",
        "0:59",
        "1:01",
        "1:00:00",
        "100:00:00",
    ]


def test_firm_words_of_a_partial_are_not_dim():
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system="standard")
    screen = Screen(console)
    screen.event(Partial(WORDS, 60.5, stable=1), 0.1)
    screen.close()
    seen = console.file.getvalue()
    assert "\x1b[2;3mwörld" in seen and "mhello" not in seen.replace("\x1b[0mhello", "")


def test_screen_keeps_finals_and_takes_partials_away():
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    screen = Screen(console)
    screen.event(Partial(WORDS[:1], 60.5), 0.1)
    screen.refresh(stats(), 0)
    screen.warn("[behind]")  # not markup
    screen.event(Final(WORDS, 61.0, 62.0), 0.1)
    screen.event(Partial((), 62.0), 0.1)
    screen.close()
    seen = console.file.getvalue()
    assert "   1:01  hello wörld" in seen and "[behind]" in seen
    assert seen.rstrip().splitlines()[-1].count("hello") == 0  # the partial is gone at the end
