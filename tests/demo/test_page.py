"""The browser demo without a browser: its socket, its downloads, its pages, its errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from starlette.applications import Starlette
from starlette.testclient import TestClient

import asr
from asr.audio.sample import sample
from asr.demo import live, page
from asr.demo.file_tab import DOWNLOADS
from asr.text.results import Final
from asr.text.writers import render
from tests.support.transcripts import ONE, OTHER, TRANSCRIPT


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


@pytest.mark.parametrize("bad", ["{", "[1]", b"odd", "[" * 60_000, f"[{'9' * 5000}]"])
def test_a_bad_message_ends_the_recording_with_a_sentence(client, bad):
    with client.websocket_connect("/live") as page:
        page.send_json({"rate": 16_000})
        (page.send_bytes if isinstance(bad, bytes) else page.send_text)(bad)
        (error,) = (message["message"] for message in until_end(page) if message["type"] == "error")
    assert isinstance(bad, bytes) or error == "A message of the page must be a JSON object, or audio."


@pytest.mark.parametrize("format", DOWNLOADS)
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


def test_the_example_is_served(client):
    assert client.get("/example.flac").content == sample().read_bytes()


def test_about(recognizer):
    text = page.about(recognizer)
    assert "LSTM" in text and "0.98 s" in text


def test_the_page_can_listen():
    """Uvicorn serves WebSockets only with a library for them, which Gradio does not bring."""
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

    assert AutoWebSocketsProtocol is not None
