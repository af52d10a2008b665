"""What every live protocol of the server does: the WebSockets of Vosk and Deepgram, and the demo's page."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress

import httpx
import numpy as np
import pytest
import websockets

from asr.demo import hosting
from asr.inference.batching import BatchRunner
from asr.server import service as service_module
from asr.server.options import ServeOptions
from asr.text.results import Final
from tests.conftest import CLIPS
from tests.support.protocols import DEEPGRAM, DEMO, VOSK, receive
from tests.support.serving import PATIENCE, numbers, pcm, rest, running, silence, until

ROCK = pcm(CLIPS / "kathleen-0.flac")  # "there was nothing on the rock", 1.5 s
PROTOCOLS = pytest.mark.parametrize("protocol", [VOSK, DEEPGRAM, DEMO], ids=lambda protocol: protocol.label)


@pytest.fixture(scope="module")
def server(recognizer):
    with running(recognizer, mount_demo=hosting.mount) as here:
        yield here


@pytest.fixture(scope="module")
def narrow(recognizer):
    """One session, whose client may be idle for two seconds."""
    with running(recognizer, ServeOptions(sessions=1, idle=2.0), mount_demo=hosting.mount) as here:
        yield here


@PROTOCOLS
def test_it_delivers_the_streams_own_words(server, recognizer, protocol, monkeypatch):
    monkeypatch.setattr(BatchRunner, "preview_interval_steps", 1)  # under load there are fewer partials
    audio = ROCK + silence(1.5) + pcm(CLIPS / "kathleen-1.flac")
    stream = recognizer.stream()
    events = stream.accept(np.frombuffer(audio, "<i2")) + stream.finish()
    before = numbers(server)

    async def record():
        async with protocol.recording(server) as client:
            for first in range(0, len(audio), 3200):
                await client.send(audio[first : first + 3200])
            await client.send(protocol.end)
            return await rest(client), client.close_code

    messages, code = asyncio.run(record())
    assert protocol.finals(messages) == [event.text for event in events if isinstance(event, Final)] != []
    assert protocol.partials(messages) and code == 1000
    after = numbers(server)
    name = f"rill_audio_seconds_total,{protocol.label}"
    assert after[name] - before.get(name, 0) == pytest.approx(len(audio) / 32_000)
    assert after[f"rill_sessions,{protocol.label}"] == 0


@PROTOCOLS
def test_there_is_room_for_so_many_sessions(recognizer, protocol):
    async def record(server):
        async with protocol.recording(server) as client:
            await client.send(ROCK)
            while not server.service.slots:
                await asyncio.sleep(0.01)
            refused = await protocol.refusal(server)
            await client.send(protocol.end)
            return refused, await rest(client)

    with running(recognizer, ServeOptions(sessions=1), mount_demo=hosting.mount) as server:
        (code, reason), messages = asyncio.run(record(server))
        assert code == 1013 and "1 places for sessions" in reason and "later" in reason
        assert protocol.finals(messages) == ["there was nothing on the rock"]
        assert numbers(server)["rill_refused_total,sessions"] == 1


@PROTOCOLS
def test_an_idle_client_gets_its_last_final_and_is_closed(narrow, protocol):
    until(lambda: not narrow.service.slots)

    async def record():
        async with protocol.recording(narrow) as client:
            await client.send(ROCK)
            messages = await rest(client)
            errors = [message["message"] for message in messages if message.get("type") == "error"]
            return messages, client.close_code, client.close_reason or errors[0]

    messages, code, reason = asyncio.run(record())
    assert protocol.finals(messages) == ["there was nothing on the rock"]
    assert (code, reason) == (1008, "Nothing came, or was read, for 2 s.")
    until(lambda: not narrow.service.slots)


@PROTOCOLS
def test_a_client_that_sends_nothing_at_all_is_closed(narrow, protocol):
    until(lambda: not narrow.service.slots)

    async def wait():
        async with websockets.connect(narrow.url(protocol.path, "ws")) as client:
            return await protocol.ending(client)

    assert asyncio.run(wait()) == (1008, "Nothing came, or was read, for 2 s.")


@PROTOCOLS
def test_a_session_does_not_last_for_ever(recognizer, protocol):
    async def record(server):
        async with protocol.recording(server) as client:
            sending = asyncio.create_task(send(client))
            ending = await protocol.ending(client)
            sending.cancel()
            return ending

    async def send(client):
        with suppress(websockets.ConnectionClosed):
            while True:
                await client.send(silence(0.1))
                await asyncio.sleep(0.05)

    with running(recognizer, ServeOptions(max_minutes=1 / 60), mount_demo=hosting.mount) as server:
        assert asyncio.run(record(server)) == (1008, "A session lasts 1 s at most: connect again.")


@PROTOCOLS
def test_a_shutdown_delivers_the_last_final(recognizer, protocol):
    async def record(server):
        async with protocol.recording(server) as client:
            await client.send(ROCK)
            first = await receive(client)
            server.shut_down()
            messages = [first, *await rest(client)]
            errors = [message["message"] for message in messages if message.get("type") == "error"]
            return messages, client.close_code, client.close_reason or errors[0]

    with running(recognizer, mount_demo=hosting.mount) as server:
        messages, code, reason = asyncio.run(record(server))
    assert protocol.finals(messages) == ["there was nothing on the rock"]
    assert (code, reason) == (1001, "The server is shutting down.")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), 1)


@PROTOCOLS
def test_no_client_is_accepted_during_a_shutdown(server, protocol, monkeypatch):
    monkeypatch.setattr(server.service, "closing", True)
    code, reason = asyncio.run(protocol.refusal(server))
    assert code == 1013 and "shutting down" in reason
    assert httpx.get(server.url("/health"), timeout=PATIENCE).status_code == 503


@PROTOCOLS
def test_no_client_is_accepted_under_overload(server, protocol, monkeypatch):
    monkeypatch.setattr(server.service.batcher, "lag", 2.0 * PATIENCE)
    code, reason = asyncio.run(protocol.refusal(server))
    assert code == 1013 and "cannot keep up" in reason


@pytest.mark.parametrize("protocol", [VOSK, DEMO], ids=lambda protocol: protocol.label)
def test_phrase_lists_are_counted_and_freed(server, protocol, monkeypatch):
    async def record():
        async with protocol.recording(server) as client:
            await client.send(protocol.end)
            return await rest(client)

    async def expect():
        async with websockets.connect(server.url(protocol.path, "ws")) as client:
            await client.send(protocol.expect)
            await client.send(silence(0.1))
            await receive(client)
            assert len(server.service._phrase_lists) == 1

    asyncio.run(expect())
    until(lambda: not server.service._phrase_lists)
    monkeypatch.setattr(service_module, "MAX_PHRASE_LISTS", 0)
    _, reason = asyncio.run(protocol.refusal(server, protocol.expect))
    assert "phrase lists" in reason
    asyncio.run(record())  # a client without phrases needs no list


@PROTOCOLS
def test_clients_that_vanish_leave_nothing_behind(server, protocol):
    async def vanish():
        for number in range(4):
            async with protocol.recording(server) as client:
                await client.send(ROCK + silence(1.5))  # a final is certain; under load there may be no partial
                if number % 2:
                    await receive(client)
                client.transport.abort()

    asyncio.run(vanish())
    until(lambda: not server.service.slots and not server.service.batcher.steps.waiting)


@PROTOCOLS
def test_an_error_of_the_model_ends_one_session_only(server, protocol, monkeypatch, caplog):
    def fail(turn):
        raise MemoryError("no room")

    async def record(*messages):
        async with protocol.recording(server) as client:
            with suppress(websockets.ConnectionClosed):
                for message in messages:
                    await client.send(message)
            return await rest(client), client.close_reason

    with monkeypatch.context() as patch:
        patch.setattr(server.service.batcher, "step", fail)
        messages, reason = asyncio.run(record(silence(0.5), protocol.end))
        assert "no room" in json.dumps(messages) + caplog.text and "ecognition" in json.dumps(messages) + reason
    messages, _ = asyncio.run(record(ROCK, protocol.end))
    assert protocol.finals(messages) == ["there was nothing on the rock"]
