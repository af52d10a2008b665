"""Clients of the server's live protocols, which differ in their messages alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import websockets

from tests.support.serving import PATIENCE, Running, connect, rest


@dataclass(frozen=True)
class Protocol:
    """How to begin a recording, expect phrases and end the stream, as JSON; `label` is its name in the metrics."""

    label: str
    path: str
    begin: str
    expect: str  # begins a recording, with the phrase "rill"
    end: str

    @asynccontextmanager
    async def recording(self, server: Running) -> AsyncIterator[websockets.ClientConnection]:
        async with connect(server.url(self.path, "ws")) as socket:
            await socket.send(self.begin)
            yield socket

    def finals(self, messages: list[dict]) -> list[str]:
        if self.label == "deepgram":
            return [transcript(message) for message in messages if message.get("is_final") and transcript(message)]
        return [message["text"] for message in messages if message.get("text") and message.get("type") != "partial"]

    def partials(self, messages: list[dict]) -> list[str]:
        if self.label == "deepgram":
            return [transcript(message) for message in messages if message.get("is_final") is False]
        key = "text" if self.label == "demo" else "partial"
        return [message[key] for message in messages if message.get("type") == "partial" or message.get("partial")]

    async def refusal(self, server: Running, *messages: str | bytes) -> tuple[int, str]:
        """How the server ends a recording of these messages: the close code, and the sentence that says why."""
        async with connect(server.url(self.path, "ws")) as socket:
            with suppress(websockets.ConnectionClosed):
                for message in messages:
                    await socket.send(message)
            return await self.ending(socket)

    async def ending(self, socket: websockets.ClientConnection) -> tuple[int, str]:
        messages = await rest(socket)
        said = [message["message"] for message in messages if message.get("type") == "error"]
        return socket.close_code, socket.close_reason or " ".join(said)


def transcript(message: dict) -> str:
    """Of Deepgram's Results."""
    return message["channel"]["alternatives"][0]["transcript"]


async def receive(socket: websockets.ClientConnection) -> dict:
    return json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))


VOSK = Protocol(
    "vosk",
    "/ws",
    '{"config": {"sample_rate": 16000}}',
    '{"config": {"sample_rate": 16000, "phrase_list": ["rill"]}}',
    '{"eof": 1}',
)
DEMO = Protocol("demo", "/demo/live", '{"rate": 16000}', '{"rate": 16000, "hotwords": ["rill"]}', '{"finish": true}')
DEEPGRAM = Protocol(
    "deepgram",
    "/v1/listen?encoding=linear16&sample_rate=16000&interim_results=true",
    '{"type": "KeepAlive"}',
    "",  # phrases are in the address
    '{"type": "CloseStream"}',
)
