"""The browser's microphone: one WebSocket carries one recording, audio up and events down.

The audio does not travel through `gr.Audio`, whose server keeps one block for each page and overwrites it while a
handler is busy. A socket keeps the order and loses nothing.

    page → server   JSON  {"rate": 48000, "latency": "balanced", "hotwords": ["rill"]}   first, once
                    bytes mono 16-bit PCM, little-endian
                    JSON  {"latency": …} or {"hotwords": […]}                            at any time
                    JSON  {"finish": true}                                               end of stream
    server → page   JSON  {"type": "partial" | "final", …, "lag": seconds}               `to_dict` of the event
                    JSON  {"type": "stats", "heard", "lag", "dropped", "worst", "behind"}  seconds
                    JSON  {"type": "error", "message"}                                   one sentence
                    JSON  {"type": "end"}                                                after the last final
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol

import numpy as np
from starlette import status
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.audio.sample import sample
from asr.decoding.hotwords import Hotword, parse_list
from asr.demo.json_bodies import MAX_JSON_BYTES
from asr.errors import RillError
from asr.inference.async_session import AsyncSession
from asr.inference.load_policy import CatchUp, LoadPolicy
from asr.inference.pending import wait_in_thread
from asr.inference.recognizer import Event, Recognizer
from asr.model.latency import LatencyLike
from asr.text.results import Final, Transcript, Word
from asr.text.writers import render

STATS_INTERVAL_S = 0.25
POLICY = LoadPolicy()  # says when audio is dropped, and when the page shows that recognition is behind


class Slot(Protocol):
    """One live session that a server has room for; it is `server.service.SessionSlot` inside `asr serve`."""

    @property
    def idle(self) -> AbstractContextManager[object]:
        """Entered while the server waits for the page."""

    @property
    def closed(self) -> Exception | None:
        """Why the server ended the session, if it did; its `code` closes the socket."""

    async def prepare(self, hotwords: tuple[Hotword, ...]) -> tuple[Hotword, ...]:
        """Make the page's hot words usable. Raises RillError."""

    def session(
        self,
        sample_rate: float,
        on_event: Callable[[Event], None],
        *,
        latency: LatencyLike | None = None,
        hotwords: tuple[Hotword, ...] | None = None,
    ) -> AsyncSession:
        """Start to recognize."""


class UnlimitedSlot:
    """A slot of a program without limits, whose recognizer computes on the thread of its caller."""

    idle, closed = nullcontext(), None

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer

    async def prepare(self, hotwords: tuple[Hotword, ...]) -> tuple[Hotword, ...]:
        await asyncio.to_thread(self.recognizer.prepare_hotwords, hotwords)
        return hotwords

    def session(
        self,
        sample_rate: float,
        on_event: Callable[[Event], None],
        *,
        latency: LatencyLike | None = None,
        hotwords: tuple[Hotword, ...] | None = None,
    ) -> AsyncSession:
        return AsyncSession(
            self.recognizer,
            sample_rate,
            on_event,
            latency=latency,
            hotwords=hotwords,
            wait=wait_in_thread,
            catch_up=CatchUp(POLICY),
        )


OpenSlot = Callable[[], AbstractContextManager[Slot]]


def routes(recognizer: Recognizer, open_slot: OpenSlot | None = None) -> list[BaseRoute]:
    """What the live page needs beside Gradio: `/live` for audio, `/transcript/srt` (txt, vtt, json) for downloads,
    `/example.flac` for whoever has no microphone.

    A recording lasts as long as the context of its slot. `open_slot` may raise RillError; without it there is no limit.
    """
    open_slot = open_slot or (lambda: nullcontext(UnlimitedSlot(recognizer)))

    async def live(socket: WebSocket) -> None:
        await socket.accept()
        try:
            with open_slot() as slot:
                await PageConnection(socket, slot, recognizer.engine.seconds_per_frame).run()
        except RillError as error:
            await refuse(socket, str(error), status.WS_1013_TRY_AGAIN_LATER)

    return [
        WebSocketRoute("/live", live),
        Route("/transcript/{format}", transcript, methods=["POST"]),
        Route("/example.flac", example),
    ]


async def refuse(socket: WebSocket, message: str, code: int) -> None:
    """Tell the page why there is no recording."""
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_json({"type": "error", "message": message})
        await socket.close(code)


class PageConnection:
    """One page's recording, from its first message to its last final."""

    def __init__(self, socket: WebSocket, slot: Slot, seconds_per_frame: float) -> None:
        self.socket, self.slot, self.seconds_per_frame = socket, slot, seconds_per_frame
        self.session: AsyncSession
        self.outbox: deque[dict[str, Any]] = deque()
        self.wake = asyncio.Event()  # the outbox has a message, or `done`
        self.done = False  # no more messages will come
        self.new_hotwords: object = None  # that the page has sent, and that are not in use yet
        self.change: asyncio.Task[None] | None = None  # to them

    async def run(self) -> None:
        try:
            self.session = await self._open()
        except WebSocketDisconnect:
            return
        except asyncio.CancelledError:  # the server ends the session
            await refuse(self.socket, str(self.slot.closed or "The server ends: start again."), self._close_code())
            return
        except (RillError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            await refuse(self.socket, describe(error), status.WS_1000_NORMAL_CLOSURE)
            return
        sender = asyncio.create_task(self._send())
        try:
            await self._receive()
            await self.session.finish()
        except WebSocketDisconnect:
            pass
        except asyncio.CancelledError:  # the server ends the session: what it has heard becomes final
            await self.session.finish()
            if self.slot.closed:
                self._post({"type": "error", "message": str(self.slot.closed)})
        except Exception as error:
            self._post({"type": "error", "message": describe(error)})
        finally:
            self.session.cancel()
            self.new_hotwords = None
            if self.change:
                await self.change
            self.done = True
            self.wake.set()
            with suppress(WebSocketDisconnect, RuntimeError):  # the page may be gone by now
                await sender
                await self.socket.close(self._close_code())

    async def _open(self) -> AsyncSession:
        with self.slot.idle:
            first = await self.socket.receive_json()
        hotwords = await asyncio.to_thread(parse_list, first.get("hotwords") or [])
        await self.slot.prepare(hotwords)
        return self.slot.session(
            float(first["rate"]),
            self._on_event,
            latency=first.get("latency"),
            hotwords=None if first.get("hotwords") is None else hotwords,
        )

    async def _receive(self) -> None:
        """Audio and settings, until the end of stream."""
        while True:
            with self.slot.idle:
                message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", status.WS_1000_NORMAL_CLOSURE))
            if message.get("bytes") is not None:
                samples = np.frombuffer(message["bytes"], dtype="<i2")
                hear = self.session.push if self.session.lag < POLICY.max_queue_s else self.session.drop
                hear(samples)
                continue
            settings = _parse(message.get("text"))
            if settings.get("finish"):
                return
            if "hotwords" in settings:
                self.new_hotwords = settings["hotwords"]
                if self.change is None or self.change.done():
                    self.change = asyncio.create_task(self._change_hotwords())
            if "latency" in settings:
                try:
                    self.session.set_latency(settings["latency"])
                except (ValueError, TypeError) as error:
                    self._post({"type": "error", "message": describe(error)})

    async def _change_hotwords(self) -> None:
        """Use new hot words, whose search takes a second to build; of several lists that came meanwhile, the newest."""
        while self.new_hotwords is not None:
            phrases, self.new_hotwords = self.new_hotwords, None
            try:
                hotwords = await asyncio.to_thread(parse_list, phrases)
                self.session.set_hotwords(await self.slot.prepare(hotwords))
            except RillError as error:
                self._post({"type": "error", "message": describe(error)})

    def _on_event(self, event: Event) -> None:
        self._post({**event.to_dict(), "lag": round(self.session.lag, 3)})

    def _post(self, message: dict[str, Any]) -> None:
        if self.outbox and message["type"] == self.outbox[-1]["type"] == "partial":
            self.outbox.pop()  # a page that reads slowly gets only the newest one
        self.outbox.append(message)
        self.wake.set()

    async def _send(self) -> None:
        """Messages as they come, and statistics at least every `STATS_INTERVAL_S`."""
        while True:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.wake.wait(), STATS_INTERVAL_S)
            self.wake.clear()
            done = self.done
            while self.outbox:
                await self.socket.send_json(self.outbox.popleft())
            await self.socket.send_json(self._stats())
            if done:
                await self.socket.send_json({"type": "end"})
                return

    def _stats(self) -> dict[str, Any]:
        session = self.session
        worst = session.stream.latency.seconds(self.seconds_per_frame)
        return {
            "type": "stats",
            "heard": round(session.seconds, 3),
            "lag": round(session.lag, 3),
            "dropped": round(session.dropped, 3),
            "worst": round(worst, 3),
            "behind": session.lag > POLICY.behind_s,
        }

    def _close_code(self) -> int:
        return getattr(self.slot.closed, "code", status.WS_1000_NORMAL_CLOSURE)


def _parse(text: str | None) -> dict[str, Any]:
    try:
        settings = json.loads(text or "")
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise ValueError("A message of the page must be a JSON object, or audio.")
    return settings


def describe(error: Exception) -> str:
    """What the page shows: the message of our own errors, the type and text of others."""
    message = str(error) if isinstance(error, (RillError, ValueError)) else f"Recognition stopped: {error!r}."
    return message.encode(errors="replace").decode()  # JSON can hold half a surrogate pair, which is no text


async def example(request: Request) -> Response:
    """The recording that comes with Rill."""
    try:
        return FileResponse(sample(), media_type="audio/flac")
    except RillError as error:
        return PlainTextResponse(str(error), status.HTTP_404_NOT_FOUND)


async def transcript(request: Request) -> Response:
    """The page's segments (as in JSON transcripts) as a file; the page keeps them, so that no session needs to."""
    try:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_JSON_BYTES:
                raise ValueError("it is too long")
        format = request.path_params["format"]
        text = await asyncio.to_thread(lambda: render(parse_transcript(json.loads(body)), format).encode())
    except (RillError, ValueError, TypeError, KeyError, RecursionError) as error:
        return PlainTextResponse(f"This is no transcript: {error}", status_code=400)
    return PlainTextResponse(text)


def parse_transcript(data: Mapping[str, Any]) -> Transcript:
    """The inverse of `Transcript.to_dict`. Raises KeyError, TypeError or ValueError for anything else."""
    segments = []
    for segment in data["segments"]:
        words = tuple(
            Word(str(w["word"]), float(w["start"]), float(w["end"]), float(w["confidence"]), w.get("text"))
            for w in segment["words"]
        )
        punctuated = all(word.written is not None for word in words)
        segments.append(Final(words, float(segment["start"]), float(segment["end"]), punctuated))
    return Transcript(tuple(segments), float(data["duration"]))
