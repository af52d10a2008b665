"""Deepgram's live transcription with Deepgram's own client, pointed at this server."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json

import numpy as np
import pytest
import soundfile
import soxr
import websockets
from deepgram import AsyncDeepgramClient, DeepgramClient
from deepgram.environment import DeepgramClientEnvironment

from tests.conftest import CLIPS
from tests.support.protocols import transcript
from tests.support.serving import PATIENCE, closed, connect, numbers, pcm, rest, running, silence

ROCK = pcm(CLIPS / "kathleen-0.flac")  # "there was nothing on the rock", 1.5 s
TEXT = "there was nothing on the rock"
TOKEN = "0123456789abcdef"
RAW = "/v1/listen?encoding=linear16&sample_rate=16000"


@pytest.fixture(scope="module")
def server(recognizer):
    with running(recognizer) as here:
        yield here


def environment(server) -> DeepgramClientEnvironment:
    web, socket = server.url(), server.url("", "ws")
    return DeepgramClientEnvironment(base=web, production=socket, agent=socket, agent_rest=web)


def blocks(audio: bytes) -> list[bytes]:
    return [audio[first : first + 3200] for first in range(0, len(audio), 3200)]


def test_the_asynchronous_client(server):
    async def talk():
        client = AsyncDeepgramClient(api_key="none", environment=environment(server))
        async with client.listen.v1.connect(
            model="nova-3",
            encoding="linear16",
            sample_rate="16000",
            interim_results="true",
            vad_events="true",
            utterance_end_ms="1000",
            keyterm="rock",
        ) as connection:
            for block in blocks(ROCK + silence(1.5) + ROCK):
                await connection.send_media(block)
            await connection.send_keep_alive()
            await connection.send_close_stream()
            return [message async for message in connection]

    *messages, metadata = asyncio.run(talk())
    results = [message for message in messages if message.type == "Results"]
    finals = [message for message in results if message.is_final]
    interim = [message for message in results if not message.is_final]
    assert [message.channel.alternatives[0].transcript for message in finals] == [TEXT, TEXT]
    assert all(message.speech_final for message in finals) and interim
    assert not any(message.speech_final for message in interim)
    best = finals[1].channel.alternatives[0]
    assert [word.word for word in best.words] == TEXT.split() and 0.5 < best.confidence <= 1
    assert finals[1].start == best.words[0].start > 2.9
    assert [message.type for message in messages].count("SpeechStarted") == 2
    assert [message.type for message in messages].count("UtteranceEnd") == 2
    assert metadata.type == "Metadata" and metadata.duration == pytest.approx(4.5, abs=0.1)
    assert metadata.sha256 == hashlib.sha256(ROCK + silence(1.5) + ROCK).hexdigest()
    assert numbers(server)["rill_audio_seconds_total,deepgram"] > 4


def test_the_synchronous_client_finalizes_and_goes_on(server):
    client = DeepgramClient(api_key="none", environment=environment(server))
    with client.listen.v1.connect(model="base", encoding="linear16", sample_rate="16000") as connection:
        texts = []
        for _ in range(2):
            for block in blocks(ROCK):
                connection.send_media(block)
            connection.send_finalize()
            message = connection.recv()
            assert message.is_final and message.from_finalize
            texts.append(message.channel.alternatives[0].transcript)
        connection.send_finalize()  # nothing was said since
        assert connection.recv().channel.alternatives[0].transcript == ""
        connection.send_close_stream()
        assert connection.recv().type == "Metadata"
    assert texts == [TEXT, TEXT]


def record(server, path: str, *messages: str | bytes) -> list[str]:
    async def talk():
        async with connect(server.url(path, "ws")) as socket:
            for message in messages:
                await socket.send(message)
            return await rest(socket)

    answers = asyncio.run(talk())
    return [transcript(message) for message in answers if message["type"] == "Results"]


def test_telephone_audio_and_wav_files(server):
    samples = soxr.resample(np.frombuffer(ROCK, "<i2"), 16_000, 8000)
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="RAW", subtype="ULAW")
    end = '{"type": "CloseStream"}'
    assert record(server, "/v1/listen?encoding=mulaw&sample_rate=8000", file.getvalue(), end) == [TEXT]
    wav = io.BytesIO()
    soundfile.write(wav, np.frombuffer(ROCK, "<i2"), 16_000, format="WAV", subtype="PCM_16")
    assert record(server, "/v1/listen", wav.getvalue(), end) == [TEXT]
    assert record(server, RAW, ROCK, b"") == [TEXT]  # older clients end with an empty message


def test_alternatives(server):
    async def talk() -> list[dict]:
        async with connect(server.url(f"{RAW}&alternatives=3", "ws")) as socket:
            for message in (ROCK, '{"type": "CloseStream"}'):
                await socket.send(message)
            return await rest(socket)

    (final,) = [message for message in asyncio.run(talk()) if message["type"] == "Results"]
    texts = [each["transcript"] for each in final["channel"]["alternatives"]]
    assert texts[0] == TEXT and 2 <= len(set(texts)) == len(texts) <= 3
    assert all(each["words"] for each in final["channel"]["alternatives"])


BAD = {
    "encoding=opus&sample_rate=48000": "linear16",
    "encoding=linear16": "sample_rate",
    "encoding=linear16&sample_rate=1": "1 Hz",
    "encoding=linear16&sample_rate=16000&alternatives=all": "'alternatives' must be a whole number",
    "encoding=linear16&sample_rate=16000&channels=2": "one channel",
    "encoding=linear16&sample_rate=16000&diarize=true": "diarize",
    "encoding=linear16&sample_rate=16000&language=de": "'en' only",
    "": "no WAV header",
}


@pytest.mark.parametrize("query, hint", BAD.items(), ids=BAD.values())
def test_what_the_server_cannot_do_is_told(server, query, hint):
    code, reason = closed(server.url(f"/v1/listen?{query}", "ws"), ROCK[:3200])
    assert code == 1007 and hint in reason


@pytest.mark.parametrize("message", ["{", "[]", '{"type": "Listen"}', b"abc"])
def test_messages_that_are_none(server, message):
    async def talk():
        async with connect(server.url(RAW, "ws")) as socket:
            await socket.send(message)
            return (await rest(socket))[-1], socket.close_code

    error, code = asyncio.run(talk())
    assert error["type"] == "Error" and error["description"] and code == 1007


def test_tokens_of_programs_and_of_pages(recognizer):
    async def ask(server, **options):
        async with connect(server.url(RAW, "ws"), **options) as socket:
            await socket.send('{"type": "CloseStream"}')
            return json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))["type"]

    with running(recognizer, tokens=(TOKEN.encode(),)) as server:
        assert asyncio.run(ask(server, additional_headers={"Authorization": f"Token {TOKEN}"})) == "Metadata"
        assert asyncio.run(ask(server, subprotocols=["token", TOKEN])) == "Metadata"
        with pytest.raises(websockets.InvalidStatus, match="401"):
            asyncio.run(ask(server, subprotocols=["token", "x" * 16]))
