"""Where the demo's page runs: on its own, and as a part of the server with its limits."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

import asr
from asr.demo import hosting, page
from asr.demo.limits import MAX_WAITING, Limits, upload_folder
from asr.errors import RillError
from asr.server.options import ServeOptions
from tests.support.serving import PATIENCE, free_port, running


@pytest.fixture(scope="module")
def recognizer() -> asr.Recognizer:
    return asr.load(device="cpu")


def test_it_is_a_part_of_the_server(recognizer):
    with running(recognizer, mount_demo=hosting.mount) as server:
        answer = httpx.get(server.url("/demo"), follow_redirects=True, timeout=PATIENCE)
        assert answer.status_code == 200 and answer.url.path == "/demo/" and "new WebSocket" in answer.text
        assert httpx.get(server.url("/favicon.ico"), timeout=PATIENCE).headers["content-type"] == "image/svg+xml"


def test_it_has_the_servers_limits(recognizer):
    """As many files at once, as long and as large, and no longer queue."""
    with running(recognizer, ServeOptions(uploads=3, max_upload=1), mount_demo=hosting.mount) as server:
        config = httpx.get(server.url("/demo/config"), timeout=PATIENCE).json()
        assert config["max_file_size"] == 1 << 20
        too_large = httpx.post(server.url("/demo/gradio_api/upload"), files={"files": bytes(2 << 20)}, timeout=PATIENCE)
        assert too_large.status_code == 413

        def unknown():
            yield b"x"

        answer = httpx.post(server.url("/demo/gradio_api/upload"), content=unknown(), timeout=PATIENCE)
        assert answer.status_code == 411
        kept = [
            httpx.post(
                server.url("/demo/gradio_api/upload"),
                files={"files": (f"{number}.wav", bytes(900_000))},
                timeout=PATIENCE,
            ).json()[0]
            for number in range(14)
        ]
        folder = upload_folder()
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= (10 << 20) + 900_000
        assert Path(kept[-1]).exists() and not Path(kept[0]).exists() and Path(kept[0]).is_relative_to(folder)
    blocks = page.build(recognizer, Limits(files=3))
    queue = {fn.concurrency_id: fn.concurrency_limit for fn in blocks.fns.values()}
    assert queue["files"] == 3 and blocks._queue.max_size == MAX_WAITING


def test_a_port_in_use_and_a_missing_certificate_are_named(recognizer):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RillError, match=rf"cannot start .*{port}.*--port"):
            hosting.serve(recognizer, "127.0.0.1", port)
    with pytest.raises(RillError, match=r"no file 'key\.pem'"):
        hosting.serve(recognizer, "127.0.0.1", port, ssl_keyfile="key.pem", ssl_certfile="cert.pem")


def test_a_proxy_that_hides_this_computer_is_named(recognizer, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(RillError, match=r"cannot reach its own page.*NO_PROXY"):
        hosting.serve(recognizer, "127.0.0.1", free_port())
