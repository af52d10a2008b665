"""The browser demo without a browser: its socket, its downloads, its pages, its errors."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile as sf
from starlette.applications import Starlette
from starlette.testclient import TestClient

import app
import asr
from asr.demo import live, page
from asr.demo.limits import MAX_WAITING, Limits, upload_folder
from asr.errors import RillError
from asr.server.options import ServeOptions
from asr.text.results import Final, Transcript, Word
from asr.text.writers import render
from tests.support.serving import PATIENCE, running

CLIPS = Path(__file__).parents[1] / "clips"
ONE, OTHER = CLIPS / "kathleen-1.flac", CLIPS / "ljspeech-1.flac"
TRANSCRIPT = Transcript((Final((Word("hello", 0.5, 0.9, 0.75), Word("<b>", 1.0, 1.2, 0.25)), 0.5, 1.2),), 2.0)


@pytest.fixture(scope="module")
def recognizer() -> asr.Recognizer:
    return asr.load(device="cpu")


@pytest.fixture(scope="module")
def client(recognizer: asr.Recognizer) -> TestClient:
    return TestClient(Starlette(routes=live.routes(recognizer)))


def blocks(path: Path) -> list[bytes]:
    samples, rate = sf.read(path, dtype="int16")
    assert rate == 16_000
    return [samples[i : i + 1600].tobytes() for i in range(0, len(samples), 1600)]


def until_end(page) -> list[dict]:
    messages = [page.receive_json()]
    while messages[-1]["type"] != "end":
        messages.append(page.receive_json())
    return messages


def finals(messages: list[dict]) -> str:
    return "\n".join(message["text"] for message in messages if message["type"] == "final")


def streamed(recognizer: asr.Recognizer, path: Path) -> str:
    stream = recognizer.stream(16_000)
    events = [event for block in blocks(path) for event in stream.accept(np.frombuffer(block, "<i2"))]
    return "\n".join(event.text for event in events + stream.finish() if isinstance(event, Final))


def test_socket_gives_partials_and_the_streams_final(client, recognizer):
    with client.websocket_connect("/live") as page:
        page.send_json({"rate": 16_000, "latency": "fast"})
        for block in blocks(ONE):
            page.send_bytes(block)
        page.send_json({"finish": True})
        messages = until_end(page)
    kinds = [message["type"] for message in messages]
    assert "partial" in kinds and kinds.index("partial") < kinds.index("final") and "stats" in kinds
    assert finals(messages) == streamed(recognizer, ONE) != ""
    stats = [message for message in messages if message["type"] == "stats"][-1]
    assert stats["heard"] == pytest.approx(len(b"".join(blocks(ONE))) / 32_000, abs=1e-3)
    assert stats["dropped"] == stats["lag"] == 0
    assert stats["worst"] == pytest.approx(0.502)


def test_two_sockets_do_not_mix(client, recognizer):
    with client.websocket_connect("/live") as a, client.websocket_connect("/live") as b:
        for page in (a, b):
            page.send_json({"rate": 16_000})
        left, right = blocks(ONE), blocks(OTHER)
        for i in range(max(len(left), len(right))):
            for page, sound in ((a, left), (b, right)):
                if i < len(sound):
                    page.send_bytes(sound[i])
        for page in (a, b):
            page.send_json({"finish": True})
        texts = [finals(until_end(page)) for page in (a, b)]
    assert texts == [streamed(recognizer, ONE), streamed(recognizer, OTHER)]


def test_settings_while_listening(client):
    with client.websocket_connect("/live") as page:
        page.send_json({"rate": 48_000, "latency": "balanced", "hotwords": []})
        page.send_json({"latency": "accurate", "hotwords": ["kubernetes"]})
        page.send_bytes(bytes(9600))
        page.send_json({"latency": "offline"})
        message = page.receive_json()
        while message["type"] != "error":
            message = page.receive_json()
        assert "full context" in message["message"]
        page.send_bytes(bytes(9600))
        page.send_json({"finish": True})
        stats = [message for message in until_end(page) if message["type"] == "stats"][-1]
    assert stats["heard"] == pytest.approx(0.2)
    assert stats["worst"] == pytest.approx(1.782)


@pytest.mark.parametrize(
    "first",
    [
        {},
        {"rate": 1},
        {"rate": "fast"},
        {"rate": 48_000, "latency": "warp"},
        {"rate": 48_000, "hotwords": ["!"]},
        [1],
        {"rate": 48_000, "hotwords": ["\ud800"]},
        {"rate": "\ud800"},
        {"rate": 48_000, "latency": "\ud800"},
        "[" * 60_000,
    ],
)
def test_a_bad_opening_is_answered_with_a_sentence(client, first):
    with client.websocket_connect("/live") as page:
        page.send_text(first if isinstance(first, str) else json.dumps(first))
        message = page.receive_json()
    assert message["type"] == "error" and len(message["message"]) > 10


@pytest.mark.parametrize("bad", ["{", "[1]", b"odd", "[" * 60_000])
def test_a_bad_message_ends_the_recording_with_a_sentence(client, bad):
    with client.websocket_connect("/live") as page:
        page.send_json({"rate": 16_000})
        (page.send_bytes if isinstance(bad, bytes) else page.send_text)(bad)
        assert [message for message in until_end(page) if message["type"] == "error"]


def test_it_is_a_part_of_the_server(recognizer):
    with running(recognizer, mount_demo=page.mount) as server:
        answer = httpx.get(server.url("/demo"), follow_redirects=True, timeout=PATIENCE)
        assert answer.status_code == 200 and answer.url.path == "/demo/" and "new WebSocket" in answer.text
        assert httpx.get(server.url("/favicon.ico"), timeout=PATIENCE).headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize("format", page.DOWNLOADS)
def test_downloads_of_the_live_page(client, format):
    answer = client.post(f"/transcript/{format}", json=TRANSCRIPT.to_dict())
    assert answer.status_code == 200
    assert answer.text == render(TRANSCRIPT, format)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{}",
        b"[]",
        b'{"segments": [{}], "duration": 1}',
        b"[" * 60_000,
        b'{"duration": 1, "segments": [{"start": 0, "end": 1, "words": [{"word": "\\ud800", '
        b'"start": 0, "end": 1, "confidence": 1}]}]}',
    ],
)
def test_what_is_no_transcript_is_refused(client, body):
    assert client.post("/transcript/srt", content=body).status_code == 400
    assert client.post("/transcript/exe", json=TRANSCRIPT.to_dict()).status_code == 400


def test_a_transcript_survives_json():
    assert live.parse_transcript(json.loads(json.dumps(TRANSCRIPT.to_dict()))) == TRANSCRIPT


def file_tab(recognizer, path, limits=page.NO_LIMITS) -> tuple[str, list[str]]:
    """What the tab shows in the end, and its downloads, read as Gradio does: before it asks for the next step."""

    async def steps():
        texts = []
        async for html, _, *buttons in page.transcribe_file(recognizer, limits, str(path)):  # noqa: B007
            files = [button.value for button in buttons if isinstance(button, page.gr.DownloadButton)]
            texts += [Path(file["path"] if isinstance(file, dict) else file).read_text() for file in files]
        return html, texts

    return asyncio.run(steps())


def test_file_tab(recognizer):
    html, texts = file_tab(recognizer, ONE)
    transcript = recognizer.transcribe(ONE)
    assert texts == [render(transcript, format) for format in page.DOWNLOADS]
    assert all(f">{word.display}</span>" in html for word in transcript.words)


def test_file_tab_says_what_is_wrong(recognizer, tmp_path):
    path = tmp_path / "a<b>.mp4"
    path.write_text("no video")
    html, _ = file_tab(recognizer, path)
    assert "role='alert'" in html and "a&lt;b&gt;.mp4" in html and "<b>" not in html


def test_file_tab_obeys_the_limits(recognizer):
    html, texts = file_tab(recognizer, ONE, Limits(max_seconds=1))
    assert "role='alert'" in html and "longer than 1 s" in html and not texts

    @contextmanager
    def full():
        raise RillError("All 4 places for uploads are taken: try again later.")
        yield

    html, texts = file_tab(recognizer, ONE, Limits(open_upload=full))
    assert "All 4 places for uploads are taken" in html and not texts


def test_it_has_the_servers_limits(recognizer):
    """As many files at once, as long and as large, and no longer queue."""
    with running(recognizer, ServeOptions(uploads=3, max_upload=1), mount_demo=page.mount) as server:
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


def test_words_and_names_are_escaped():
    html = page.file_result(TRANSCRIPT, "/tmp/it's.mp4", 1.0)
    assert "<b>" not in html and "it's.mp4" not in html


def test_inside_the_network(recognizer, tmp_path):
    html = page.look_inside(recognizer, str(ONE), "Layer 2", next(iter(page.LIVE_CHOICES)), True)
    assert "<svg" in html and ">expectancy<" in html and "layer 2" in html
    sf.write(tmp_path / "short.wav", np.zeros(100), 16_000)
    assert "too short" in page.look_inside(recognizer, str(tmp_path / "short.wav"), "Layer 1", "fast (8, 4)", False)
    assert page.look_inside(recognizer, None, "Layer 1", "fast (8, 4)", False) == ""


def test_about(recognizer):
    text = page.about(recognizer)
    assert "LSTM" in text and "0.98 s" in text


def test_a_port_in_use_and_a_missing_certificate_are_named(recognizer):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RillError, match=rf"Port {port}.*--port"):
            page.serve(recognizer, "127.0.0.1", port)
    with pytest.raises(RillError, match=r"no file 'key\.pem'"):
        page.serve(recognizer, "127.0.0.1", port, ssl_keyfile="key.pem", ssl_certfile="cert.pem")


def test_a_missing_checkpoint_is_one_sentence(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["app.py", "--checkpoint", "nowhere"])
    with pytest.raises(SystemExit, match="There is no checkpoint 'nowhere'"):
        app.main()
