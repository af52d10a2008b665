"""Wyoming with the protocol's own package, as Home Assistant uses it."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing, contextmanager

import numpy as np
import pytest
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping

from asr.errors import RillError
from asr.server.listening import listen
from asr.server.options import ServeOptions
from asr.server.process import run_server
from asr.server.wyoming import parse_address
from tests.conftest import CLIPS
from tests.support.serving import PATIENCE, numbers, pcm, running, until

ROCK = pcm(CLIPS / "kathleen-0.flac")  # "there was nothing on the rock", 1.5 s
TEXT = "there was nothing on the rock"


@contextmanager
def serving(recognizer, options: ServeOptions | None = None):
    with closing(listen("127.0.0.1", 0)) as listener, running(recognizer, options, wyoming=listener) as server:
        yield server, listener.getsockname()[1]


@pytest.fixture(scope="module")
def wyoming(recognizer):
    with serving(recognizer) as here:
        yield here


async def read(client: AsyncTcpClient, last: str) -> list[Event]:
    """All events up to the first of this type."""
    events: list[Event] = []
    while not events or events[-1].type != last:
        event = await asyncio.wait_for(client.read_event(), PATIENCE)
        assert event, f"the server closed before {last}: {events}"
        events.append(event)
    return events


async def send(client: AsyncTcpClient, audio: bytes, channels: int = 1) -> None:
    await client.write_event(AudioStart(16_000, 2, channels).event())
    for first in range(0, len(audio), 2048):
        await client.write_event(AudioChunk(16_000, 2, channels, audio[first : first + 2048]).event())


def test_it_describes_itself_and_transcribes(wyoming):
    server, port = wyoming

    async def talk():
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Describe().event())
            await client.write_event(Ping("hello").event())
            first = await read(client, "pong")
            await client.write_event(Transcribe(language="en-GB", transcript_terms=["rock"]).event())
            stereo = np.repeat(np.frombuffer(ROCK, "<i2"), 2).tobytes()
            transcripts = []
            for audio, channels in ((ROCK, 1), (stereo, 2)):
                await send(client, audio, channels)
                await client.write_event(AudioStop().event())
                transcripts.append(await read(client, "transcript-stop"))
            return first, transcripts

    (described, pong), transcripts = asyncio.run(talk())
    (program,) = Info.from_event(described).asr
    assert program.supports_transcript_streaming and program.models[0].languages == ["en"]
    assert pong.data["text"] == "hello"
    for events in transcripts:
        kinds = [event.type for event in events]
        assert kinds[0] == "transcript-start" and kinds[-2:] == ["transcript", "transcript-stop"]
        chunks = "".join(event.data["text"] for event in events if event.type == "transcript-chunk")
        assert chunks and TEXT.startswith(chunks) and events[-2].data["text"] == TEXT
    until(lambda: numbers(server)["rill_sessions,wyoming"] == 0)
    assert numbers(server)["rill_audio_seconds_total,wyoming"] == pytest.approx(2 * len(ROCK) / 32_000)


def test_silence_gives_an_empty_transcript(wyoming):
    async def talk():
        async with AsyncTcpClient("127.0.0.1", wyoming[1]) as client:
            await send(client, bytes(16_000))
            await client.write_event(AudioStop().event())
            return await read(client, "transcript")

    assert [event.data["text"] for event in asyncio.run(talk())] == [""]


def raw(port: int, data: bytes) -> dict:
    """The last event that the server answers to these bytes, before it closes."""

    async def talk():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        return answer

    line, _, rest = asyncio.run(talk()).partition(b"\n")
    return {**json.loads(line), "data": json.loads(rest)}


@pytest.mark.parametrize(
    "data, hint",
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b'{"type": "describe"}\n', "no event"),  # of a web page
        (b"[1]\n", "no event"),
        (b'{"data": {}}\n', "no event"),
        (b'{"type": "x", "data_length": -1}\n', "1024 KiB"),
        (b'{"type": "x", "payload_length": 99999999}\n', "1024 KiB"),
        (b"x" * (1 << 18), "no event"),
        (b'{"type": "audio-chunk", "data": {"rate": 16000}}\n', "rate, width and channels"),
        (b'{"type": "audio-start", "data": {"rate": 16000, "width": 4, "channels": 1}}\n', "16-bit"),
        (b'{"type": "audio-start", "data": {"rate": 1, "width": 2, "channels": 1}}\n', "1 Hz"),
        (b'{"type": "transcribe", "data": {"language": "de"}}\n', "'en' only"),
    ],
)
def test_what_is_not_understood_ends_the_connection_with_a_sentence(wyoming, data, hint):
    answer = raw(wyoming[1], data)
    assert answer["type"] == "error" and hint in answer["data"]["text"]


def test_limits_hold(recognizer):
    async def talk(port):
        async with AsyncTcpClient("127.0.0.1", port) as first:
            await send(first, ROCK)
            await read(first, "transcript-chunk")
            async with AsyncTcpClient("127.0.0.1", port) as second:
                refused = (await read(second, "error"))[-1].data["text"]
            return refused, await read(first, "error")

    with serving(recognizer, ServeOptions(sessions=1, idle=1.5)) as (_, port):
        refused, events = asyncio.run(talk(port))
    assert "1 places for sessions" in refused
    assert [event.data["text"] for event in events if event.type == "transcript"] == [TEXT]
    assert events[-1].data["text"] == "Nothing came, or was read, for 1.5 s."


def test_a_shutdown_delivers_the_transcript(recognizer):
    async def talk(server, port):
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await send(client, ROCK)
            await read(client, "transcript-chunk")
            server.shut_down()
            return await read(client, "error")

    with serving(recognizer) as (server, port):
        events = asyncio.run(talk(server, port))
    assert [event.data["text"] for event in events if event.type == "transcript"] == [TEXT]
    assert events[-1].data["text"] == "The server is shutting down."


def test_addresses():
    assert parse_address("tcp://0.0.0.0:10300") == ("0.0.0.0", 10300)
    for bad in ("0.0.0.0:10300", "tcp://localhost", "unix:///run/rill", "tcp://:1", "tcp://host:99999"):
        with pytest.raises(RillError, match=r"tcp://HOST:PORT"):
            parse_address(bad)


@pytest.mark.parametrize("local, with_tokens", [(False, False), (True, True)])
def test_who_has_no_token_is_let_in_by_no_token_alone(tmp_path, local, with_tokens):
    """At addresses that other computers reach, and beside protocols that want tokens."""
    tokens = tmp_path / "tokens"
    tokens.write_text("0123456789abcdef")
    options = ServeOptions(
        port=0,
        wyoming=f"tcp://{'127.0.0.1' if local else '0.0.0.0'}:0",
        token_file=tokens if with_tokens else None,
    )

    def load():
        raise AssertionError("the address is checked first")

    with listen("127.0.0.1", 0) as listener:
        with pytest.raises(RillError, match=r"--no-token"):
            run_server(load, options, listener, print)
        with pytest.raises(AssertionError, match="checked first"):
            run_server(load, options.model_copy(update={"no_token": True}), listener, print)
