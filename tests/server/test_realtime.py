"""OpenAI's Realtime transcription with OpenAI's own client, in its present and its beta form."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import httpx
import numpy as np
import openai
import pytest
import soundfile
import soxr
import websockets

from asr.server.options import ServeOptions
from tests.conftest import CLIPS
from tests.support.serving import PATIENCE, connect, numbers, pcm, running, until

ROCK = np.frombuffer(pcm(CLIPS / "kathleen-0.flac"), "<i2")  # "there was nothing on the rock", 1.5 s
TEXT = "there was nothing on the rock"
AT_24_KHZ = soxr.resample(ROCK, 16_000, 24_000)
PAUSE = np.zeros(36_000, np.int16)  # 1.5 s
TRANSCRIPTION = "conversation.item.input_audio_transcription"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def server(recognizer):
    with running(recognizer, ServeOptions(cors=("https://example.org",))) as here:
        yield here


def session(**given) -> dict:
    return {"type": "transcription", "audio": {"input": given}}


async def append(connection, samples: np.ndarray) -> None:
    data = samples.tobytes()
    for first in range(0, len(data), 9600):
        await connection.input_audio_buffer.append(audio=base64.b64encode(data[first : first + 9600]).decode())


async def until_event(connection, kind: str) -> list:
    """All events up to the first of this type."""
    events = []
    while not events or events[-1].type != kind:
        events.append(await asyncio.wait_for(connection.recv(), PATIENCE))
    return events


def client(server, key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server.url("/v1"), api_key=key)


def test_turns_are_found_and_transcribed(server):
    async def talk():
        async with client(server).realtime.connect(extra_query={"intent": "transcription"}) as connection:
            await connection.session.update(
                session=session(
                    format={"type": "audio/pcm", "rate": 24000},
                    transcription={"model": "gpt-4o-transcribe", "language": "en", "prompt": "rock, the sea"},
                    turn_detection={"type": "server_vad"},
                )
                | {"include": ["item.input_audio_transcription.logprobs"]}
            )
            await append(connection, np.concatenate([AT_24_KHZ, PAUSE, AT_24_KHZ, PAUSE]))
            first = await until_event(connection, f"{TRANSCRIPTION}.completed")
            return first, await until_event(connection, f"{TRANSCRIPTION}.completed")

    first, second = asyncio.run(talk())
    kinds = [event.type for event in first if not event.type.endswith(".delta")]
    assert kinds == [
        "session.created",
        "session.updated",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        f"{TRANSCRIPTION}.completed",
    ]
    assert first[1].session.audio.input.transcription.model == "gpt-4o-transcribe"
    items = {event.item_id for event in first if hasattr(event, "item_id")}
    deltas = "".join(event.delta for event in first if event.type.endswith(".delta"))
    assert len(items) == 1 and TEXT.startswith(deltas) and deltas
    done = first[-1]
    assert done.transcript == TEXT and done.usage.seconds == pytest.approx(1.4, abs=0.2)
    assert "".join(each.token for each in done.logprobs) == TEXT and all(-3 < e.logprob <= 0 for e in done.logprobs)
    assert second[-1].transcript == TEXT and second[-1].item_id not in items
    started = next(event for event in second if event.type.endswith("speech_started"))
    assert 2500 < started.audio_start_ms < 3500
    (committed,) = (event for event in second if event.type.endswith("committed"))
    assert {committed.previous_item_id} == items
    until(lambda: numbers(server)["rill_sessions,realtime"] == 0)
    assert numbers(server)["rill_audio_seconds_total,realtime"] > 5


def test_without_turn_detection_the_client_commits(server):
    async def talk():
        async with client(server).realtime.connect(extra_query={"intent": "transcription"}) as connection:
            await connection.session.update(session=session(turn_detection=None))
            await append(connection, np.concatenate([AT_24_KHZ, PAUSE, AT_24_KHZ]))
            await connection.input_audio_buffer.commit()
            return await until_event(connection, f"{TRANSCRIPTION}.completed")

    events = asyncio.run(talk())
    assert events[-1].transcript == f"{TEXT} {TEXT}"
    assert not any("speech_" in event.type for event in events)
    assert events[1].session.audio.input.turn_detection is None


def test_a_cleared_buffer_is_forgotten(server):
    async def talk():
        async with client(server).realtime.connect(extra_query={"intent": "transcription"}) as connection:
            await connection.session.update(session=session(turn_detection=None))
            await append(connection, AT_24_KHZ)
            await connection.input_audio_buffer.clear()
            await until_event(connection, "input_audio_buffer.cleared")
            await connection.input_audio_buffer.commit()
            return (await until_event(connection, "error"))[-1]

    assert "empty" in asyncio.run(talk()).error.message


@pytest.mark.parametrize("format", ["g711_ulaw", "pcm16"])
def test_the_beta_form(server, format):
    """Its sessions are flat, and come as `transcription_session`."""
    audio = AT_24_KHZ.tobytes()
    if format == "g711_ulaw":
        file = io.BytesIO()
        soundfile.write(file, soxr.resample(ROCK, 16_000, 8000), 8000, format="RAW", subtype="ULAW")
        audio = file.getvalue()

    async def talk():
        async with connect(
            server.url("/v1/realtime?intent=transcription", "ws"), additional_headers={"OpenAI-Beta": "realtime=v1"}
        ) as socket:
            update = {"input_audio_format": format, "turn_detection": {"type": "server_vad"}}
            events = [
                {"type": "transcription_session.update", "session": update},
                {"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()},
                {"type": "input_audio_buffer.commit"},
            ]
            for event in events:
                await socket.send(json.dumps(event))
            answers = []
            while not answers or not answers[-1]["type"].endswith("completed"):
                answers.append(json.loads(await asyncio.wait_for(socket.recv(), PATIENCE)))
            return answers

    answers = asyncio.run(talk())
    kinds = [answer["type"] for answer in answers]
    assert kinds[:2] == ["transcription_session.created", "transcription_session.updated"]
    assert answers[1]["session"]["input_audio_format"] == format and "conversation.item.created" in kinds
    assert answers[-1]["transcript"] == TEXT


BAD = {
    "no event": ({"type": "response.create"}, "response.create"),
    "no base64": ({"type": "input_audio_buffer.append", "audio": "%%"}, "base64"),
    "no text": ({"type": "input_audio_buffer.append", "audio": 3}, "base64"),
    "half a sample": ({"type": "input_audio_buffer.append", "audio": "YWJj"}, "3 bytes"),
    "no session": ({"type": "session.update", "session": 3}, "session"),
    "a conversation": ({"type": "session.update", "session": {"type": "realtime"}}, "transcribes only"),
    "a model": (
        {"type": "session.update", "session": session(transcription={"model": "tts-1"})},
        "no model 'tts-1'",
    ),
    "a language": ({"type": "session.update", "session": session(transcription={"language": "de"})}, "'en' only"),
    "a format": ({"type": "session.update", "session": session(format={"type": "audio/mp3"})}, "audio/pcm"),
    "a rate": ({"type": "session.update", "session": session(format={"type": "audio/pcm", "rate": 1})}, "1 Hz"),
    "no list": ({"type": "session.update", "session": session(transcription={"keywords": 3})}, "list"),
    "no object": ({"type": "session.update", "session": session(transcription=3)}, "transcription"),
}


def test_mistakes_are_told_and_the_session_goes_on(server):
    async def talk():
        answers = []
        async with connect(server.url("/v1/realtime?intent=transcription", "ws")) as socket:
            await socket.recv()
            for message in ["{", "[1]", *(json.dumps({**event, "event_id": "mine"}) for event, _ in BAD.values())]:
                await socket.send(message)
                answers.append(json.loads(await asyncio.wait_for(socket.recv(), PATIENCE)))
            audio = base64.b64encode(AT_24_KHZ.tobytes()).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            await socket.send('{"type": "input_audio_buffer.commit"}')
            while (last := json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))).get("transcript") is None:
                pass
            return answers, last

    answers, last = asyncio.run(talk())
    assert {answer["type"] for answer in answers} == {"error"}
    for answer, (_, hint) in zip(answers[2:], BAD.values(), strict=True):
        assert hint in answer["error"]["message"] and answer["error"]["event_id"] == "mine"
    assert last["transcript"] == TEXT


def test_a_shutdown_delivers_the_last_transcript(recognizer):
    async def talk(server):
        async with client(server).realtime.connect(extra_query={"intent": "transcription"}) as connection:
            await append(connection, AT_24_KHZ)
            await until_event(connection, f"{TRANSCRIPTION}.delta")
            server.shut_down()
            done = await until_event(connection, f"{TRANSCRIPTION}.completed")
            return done[-1].transcript, (await until_event(connection, "error"))[-1].error.message

    with running(recognizer) as server:
        assert asyncio.run(talk(server)) == (TEXT, "The server is shutting down.")


def test_tokens_of_programs_and_of_pages(recognizer):
    async def ask(server, **options):
        async with connect(server.url("/v1/realtime", "ws"), **options) as socket:
            return json.loads(await socket.recv())["type"], socket.subprotocol

    with running(recognizer, tokens=(TOKEN.encode(),)) as server:
        program = {"additional_headers": {"Authorization": f"Bearer {TOKEN}"}}
        assert asyncio.run(ask(server, **program)) == ("session.created", None)
        page = {"subprotocols": ["realtime", f"openai-insecure-api-key.{TOKEN}"]}
        assert asyncio.run(ask(server, **page)) == ("session.created", "realtime")
        with pytest.raises(websockets.InvalidStatus, match="401"):
            asyncio.run(ask(server))
        assert httpx.get(server.url("/v1/models")).status_code == 401
