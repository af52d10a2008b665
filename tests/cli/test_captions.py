"""The page of `asr listen --captions`: what it is told, whom it serves, and how it looks over a picture."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import soundfile

from asr.cli import captions
from asr.cli.captions import Captions
from asr.text.results import Final, Partial, Word
from tests.conftest import CLIPS, Asr
from tests.support.serving import PATIENCE

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ROOT = Path(__file__).parents[2]


def words(text: str, start: float, end: float) -> tuple[Word, ...]:
    return tuple(Word(word, start, end, 1.0) for word in text.split())


def partial(text: str, start: float, stable: int = 0) -> Partial:
    return Partial(words(text, start, start + 1), start, stable)


def final(text: str, start: float, end: float) -> Final:
    return Final(words(text, start, end), start, end)


@pytest.fixture
def page() -> Iterator[Captions]:
    with closing(Captions(0)) as page:
        yield page


def states(lines: Iterator[str]) -> Iterator[dict]:
    return (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


def test_a_page_gets_the_whole_state_at_once_and_then_every_change(page: Captions) -> None:
    page.event(final("One.", 0, 1))
    with httpx.stream("GET", page.url + "events", timeout=PATIENCE) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        seen = states(answer.iter_lines())
        assert next(seen) == {"finals": ["One."], "partial": "", "stable": 0}
        page.event(partial("two three", 2, stable=1))
        assert next(seen) == {"finals": ["One."], "partial": "two three", "stable": 1}
        page.event(final("Two.", 2, 3))
        assert next(seen) == {"finals": ["One.", "Two."], "partial": "", "stable": 0}
        page.event(partial("later", 30))  # what was said before the silence is gone
        assert next(seen) == {"finals": [], "partial": "later", "stable": 0}
        page.close()
        assert list(seen) == []


def test_a_slow_page_gets_the_newest_state_alone(page: Captions) -> None:
    for number in range(1000):
        page.event(final(f"{number}.", number, number + 1))
    assert json.loads(page.after(-1)[1] or "")["finals"] == ["996.", "997.", "998.", "999."]


def test_only_this_computer_by_its_own_names(page: Captions) -> None:
    port = int(page.url.rsplit(":")[-1].strip("/"))
    assert httpx.get(f"http://localhost:{port}/").status_code == 200
    assert httpx.get(page.url, headers={"Host": f"evil.example:{port}"}).status_code == 403
    assert httpx.get(page.url + "etc/passwd").status_code == 404
    assert httpx.post(page.url).status_code == 501
    assert "connect-src 'self'" in httpx.get(page.url + "?a=1").headers["content-security-policy"]


def test_pages_beyond_the_limit_are_refused(page: Captions, monkeypatch: pytest.MonkeyPatch) -> None:
    page.event(final("One.", 0, 1))
    monkeypatch.setattr(page, "room", captions.threading.BoundedSemaphore(1))
    with httpx.stream("GET", page.url + "events", timeout=PATIENCE) as answer:
        next(answer.iter_lines())
        assert httpx.get(page.url + "events").status_code == 503
        page.event(partial("two", 1))


def test_a_port_in_use_is_named_before_loading(asr: Asr) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, said = asr("listen", "--captions", port, "--input", "nowhere.wav")
    assert code == 1 and said.startswith(f"asr: Port {port} cannot be used for captions")


@pytest.mark.e2e
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt install chromium")
def test_speech_over_a_picture(tmp_path: Path) -> None:
    """Real speech in a real browser: the text of the clip, on what is behind it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    with (
        subprocess.Popen(
            [sys.executable, "-m", "asr.cli", "listen", "--captions", "0", "--json", "--input", "-", "--rate", "16000"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
        playwright.sync_playwright() as driver,
    ):
        assert process.stdin and process.stdout and process.stderr
        url = process.stderr.readline().decode().split()[-1]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(url)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgba(0, 0, 0, 0)"
        sound = soundfile.read(CLIPS / "kathleen-0.flac", dtype="int16")[0]
        process.stdin.write(sound.tobytes() + bytes(2 * 16_000))
        process.stdin.flush()
        patience_ms = 1000 * PATIENCE
        playwright.expect(page.locator(".partial")).not_to_be_empty(timeout=patience_ms)
        playwright.expect(page.locator(".firm")).to_have_text("There was nothing on the rock.", timeout=patience_ms)
        page.evaluate("document.documentElement.style.background = 'linear-gradient(90deg, white, gold, black)'")
        page.screenshot(path=tmp_path / "captions.png")
        box = page.locator("#captions").bounding_box()
        assert box and box["y"] > 360 and box["y"] + box["height"] <= 720
        browser.close()
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
