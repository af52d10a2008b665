"""The clients of `examples/clients`, unchanged, against a server on this computer."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.server.options import ServeOptions
from tests.conftest import CLIPS
from tests.support.serving import PATIENCE, RATE, running

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
ROCK = CLIPS / "kathleen-0.flac"
TEXT = "there was nothing on the rock"
NODE = shutil.which("node")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SLOW = """window.WebSocket = class extends WebSocket {
  set onopen(opened) { super.onopen = event => setTimeout(() => opened(event), 1000); }
}"""  # a connection that takes its time
pytestmark = pytest.mark.e2e


@contextmanager
def site() -> Iterator[str]:
    """The origin of another site than the server's, which has the clients' pages."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(CLIENTS))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def wav(path: Path, before_s: float, after_s: float) -> Path:
    """The clip between silences."""
    samples, rate = soundfile.read(ROCK, dtype="int16")
    assert rate == RATE
    silences = [np.zeros(round(seconds * rate), np.int16) for seconds in (before_s, after_s)]
    soundfile.write(path, np.concatenate([silences[0], samples, silences[1]]), rate)
    return path


@pytest.mark.skipif(not NODE, reason="needs Node")
@pytest.mark.parametrize("after_s", [0.0, 2.0])  # the final comes with the end, or before
def test_vosks_protocol_from_node(recognizer, tmp_path, after_s):
    options = ["--experimental-websocket"]  # without which Node before 22 has no WebSocket
    client = [str(NODE), *options, str(CLIENTS / "vosk.mjs")]
    with running(recognizer) as server:
        arguments = [server.url("/ws", "ws"), str(wav(tmp_path / "talk.wav", 0, after_s))]
        done = subprocess.run([*client, *arguments], capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout) == (0, f"{TEXT}\n"), done.stderr
    gone = subprocess.run([*client, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert gone.returncode == 1 and f"No server answers at {arguments[0]}" in gone.stderr


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt install chromium")
def test_vosks_protocol_from_a_page_of_another_site(recognizer, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    options = [
        "--no-sandbox",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={wav(tmp_path / 'talk.wav', 0.0, 2.0)}%noloop",
    ]
    with site() as origin, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.add_init_script(SLOW)
        with running(recognizer, ServeOptions(cors=(origin,))) as server:
            page.goto(f"{origin}/vosk.html?server={server.url('/ws', 'ws')}")
            page.click("#button")
            page.wait_for_function("document.getElementById('text').textContent")
            assert page.inner_text("#text").lower().strip(" .") == TEXT
            page.click("#button")  # the end, which the server answers
        with running(recognizer) as strict:  # it knows no other site
            page.goto(f"{origin}/vosk.html?server={strict.url('/ws', 'ws')}")
            page.click("#button")
            page.wait_for_function("document.getElementById('status').textContent")
            assert "--cors" in page.inner_text("#status") and page.inner_text("#button") == "Start"
        browser.close()
