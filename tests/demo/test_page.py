"""The browser demo without a browser: its socket, its downloads, its pages, its errors."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from starlette.applications import Starlette
from starlette.testclient import TestClient

import asr
from asr.audio.sample import sample
from asr.demo import live, page
from asr.demo.limits import Limits
from asr.errors import RillError
from asr.text.results import Final, Transcript, Word
from asr.text.writers import render

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


@pytest.mark.parametrize("bad", ["{", "[1]", b"odd", "[" * 60_000, f"[{'9' * 5000}]"])
def test_a_bad_message_ends_the_recording_with_a_sentence(client, bad):
    with client.websocket_connect("/live") as page:
        page.send_json({"rate": 16_000})
        (page.send_bytes if isinstance(bad, bytes) else page.send_text)(bad)
        (error,) = (message["message"] for message in until_end(page) if message["type"] == "error")
    assert isinstance(bad, bytes) or error == "A message of the page must be a JSON object, or audio."


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


def file_tab(recognizer, *paths, limits=page.NO_LIMITS, hotwords="", sentences=True, digits=False):
    """What the tab shows in the end, and its downloads, read as Gradio does: before it asks for the next step."""

    async def steps():
        found = []
        steps = page.transcribe_files(recognizer, limits, list(map(str, paths)), hotwords, sentences, digits)
        async for html, _, _, *buttons in steps:  # noqa: B007
            files = [button.value for button in buttons if isinstance(button, page.gr.DownloadButton)]
            found += [Path(file["path"] if isinstance(file, dict) else file).read_bytes() for file in files]
        return html, found

    return asyncio.run(steps())


def test_file_tab(recognizer):
    html, texts = file_tab(recognizer, ONE)
    transcript = recognizer.transcribe(ONE)
    assert [text.decode() for text in texts] == [render(transcript, format) for format in page.DOWNLOADS]
    assert all(f">{word.display}</span>" in html for word in transcript.words)


def test_file_tab_says_what_is_wrong(recognizer, tmp_path):
    path = tmp_path / "a<b>.mp4"
    path.write_text("no video")
    html, _ = file_tab(recognizer, path)
    assert "role='alert'" in html and "a&lt;b&gt;.mp4" in html and "<b>" not in html


def test_several_files_have_their_downloads_in_archives(recognizer, tmp_path):
    again = tmp_path / ONE.name
    again.write_bytes(ONE.read_bytes())
    (tmp_path / "none.mp3").write_text("no sound")
    html, archives = file_tab(recognizer, ONE, tmp_path / "none.mp3", OTHER, again)
    assert html.count("<video") == 3 and html.count("role='alert'") == 1  # what fails does not stop the others
    for format, archive in zip(page.DOWNLOADS, archives, strict=True):
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            texts = {name: files.read(name).decode() for name in files.namelist()}
        assert list(texts) == [f"{ONE.stem}.{format}", f"{OTHER.stem}.{format}", f"{ONE.stem}-2.{format}"]
        assert texts[f"{OTHER.stem}.{format}"] == render(recognizer.transcribe(OTHER), format)


def test_settings_of_the_file_tab(recognizer, clips):
    raw = " ".join(word.text for word in recognizer.transcribe(ONE, punctuate=False).words)
    _, (text, *_) = file_tab(recognizer, ONE, sentences=False)
    assert " ".join(text.decode().split()) == raw
    _, (text, *_) = file_tab(recognizer, ONE, sentences=False, hotwords="certitude, expectorant:30")
    assert "expectorant" in text.decode()
    html, texts = file_tab(recognizer, ONE, hotwords="!")
    assert "role='alert'" in html and not texts


def test_the_example_is_served_and_can_be_uploaded(client, recognizer):
    assert client.get("/example.flac").content == sample().read_bytes()
    ((path,), sources) = page._example()
    assert Path(path).is_relative_to(page.upload_folder()) and sources == [path]


def test_file_tab_obeys_the_limits(recognizer):
    html, texts = file_tab(recognizer, ONE, limits=Limits(max_seconds=1))
    assert "role='alert'" in html and "longer than 1 s" in html and not texts

    @contextmanager
    def full():
        raise RillError("All 4 places for uploads are taken: try again later.")
        yield

    html, texts = file_tab(recognizer, ONE, limits=Limits(open_upload=full))
    assert "All 4 places for uploads are taken" in html and not texts


def test_words_and_names_are_escaped():
    html = page.file_result(TRANSCRIPT, "/tmp/it's.mp4", 1.0)
    assert "<b>" not in html and "it's.mp4" not in html


def test_inside_the_network(recognizer, tmp_path):
    html = page.look_inside(recognizer, str(ONE), "Layer 2", next(iter(page.LIVE_CHOICES)))
    assert "<svg" in html and ">expectancy<" in html and "layer 2" in html
    sf.write(tmp_path / "short.wav", np.zeros(100), 16_000)
    assert "too short" in page.look_inside(recognizer, str(tmp_path / "short.wav"), "Layer 1", "fast (8, 4)")
    assert page.look_inside(recognizer, None, "Layer 1", "fast (8, 4)") == ""


def test_about(recognizer):
    text = page.about(recognizer)
    assert "LSTM" in text and "0.98 s" in text


def test_the_page_can_listen():
    """Uvicorn serves WebSockets only with a library for them, which Gradio does not bring."""
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

    assert AutoWebSocketsProtocol is not None
