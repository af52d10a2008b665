"""The browser's microphone: one WebSocket carries one recording, sound up and events down.

The sound does not travel through `gr.Audio`, whose server keeps one block for each page and overwrites it while a
handler is busy. A socket keeps the order and loses nothing.

    page → server   JSON  {"rate": 48000, "latency": "balanced", "hotwords": ["rill"]}   first, once
                    bytes mono int16, little-endian
                    JSON  {"latency": …} or {"hotwords": […]}                            at any time
                    JSON  {"finish": true}                                               no more sound
    server → page   JSON  {"type": "partial" | "final", …, "lag": seconds}               `to_dict` of the event
                    JSON  {"type": "stats", "heard", "lag", "dropped", "worst", "behind"}  seconds
                    JSON  {"type": "error", "message"}                                   one sentence
                    JSON  {"type": "end"}                                                the last words are out
"""
from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol

import numpy as np
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.decoding.hotwords import Hotword, parse_list
from asr.errors import RillError
from asr.inference.live import LiveSession, Stats
from asr.inference.recognizer import Event, Recognizer
from asr.text.results import Final, Transcript, Word
from asr.text.writers import render

STATS_EVERY = 0.25  # seconds
LONGEST_REQUEST = 16_000_000  # bytes of a transcript that is to be laid out as a file: days of speech
DONE, TRY_LATER = 1000, 1013  # close codes


class Guest(Protocol):
    """Who has been let in: a `service.Place`."""

    @property
    def waiting(self) -> AbstractContextManager[object]:
        """Entered while it is the page's move."""

    @property
    def leave(self) -> Exception | None:
        """Why the place was taken back, if it was; its `code` closes the socket."""

    @property
    def hotwords(self) -> tuple[Hotword, ...]:
        """Those that are held."""

    def hold(self, hotwords: tuple[Hotword, ...]) -> None:
        """The page uses these hot words, and no others any more. Raises RillError."""


class Anybody:
    """A guest of a program that counts none."""

    waiting, leave, hotwords = nullcontext(), None, ()

    def hold(self, hotwords: tuple[Hotword, ...]) -> None:
        pass


Admit = Callable[[], AbstractContextManager[Guest]]
Ended = Callable[[Stats], None]


def routes(recognizer: Recognizer, admit: Admit = lambda: nullcontext(Anybody()), ended: Ended | None = None
           ) -> list[BaseRoute]:
    """What the live page needs beside Gradio: `/live` for sound, `/transcript/srt` (txt, vtt, json) for downloads.

    A recording lasts as long as the context that `admit` gives, which may raise RillError; `ended` is told of its end.
    """

    async def live(socket: WebSocket) -> None:
        await socket.accept()
        connection = Connection(socket, recognizer)
        try:
            with admit() as guest:
                await connection.run(guest)
        except RillError as error:
            await connection.give_up(error, TRY_LATER)
        if ended and connection.stats:
            ended(connection.stats)

    return [WebSocketRoute("/live", live), Route("/transcript/{format}", transcript, methods=["POST"])]


class Connection:
    """One page's recording, from the first message to the last word."""

    def __init__(self, socket: WebSocket, recognizer: Recognizer) -> None:
        self.socket, self.recognizer = socket, recognizer
        self.loop = asyncio.get_running_loop()
        self.outbox: deque[dict[str, Any]] = deque()
        self.wake = asyncio.Event()
        self.done = False  # nothing more will be posted
        self.stats: Stats | None = None  # of the whole recording
        self.wanted: object = None  # hot words that are to be used from now on
        self.changing: asyncio.Task[None] | None = None

    async def run(self, guest: Guest) -> None:
        try:
            with guest.waiting:
                first = await self.socket.receive_json()
            guest.hold(hotwords := await asyncio.to_thread(parse_list, first.get("hotwords") or []))
            session = await asyncio.to_thread(self._open, first, hotwords)
        except WebSocketDisconnect:
            return
        except asyncio.CancelledError:  # the server wants the place back
            await self.give_up(guest.leave or RillError("The server ends: start again."), _code(guest))
            return
        except (RillError, ValueError, TypeError, KeyError, AttributeError) as error:
            await self.give_up(error)
            return
        sender = asyncio.create_task(self._send(session))
        try:
            await self._receive(session, guest)
            await asyncio.to_thread(session.close)
        except WebSocketDisconnect:
            await asyncio.to_thread(session.close, flush=False)
        except asyncio.CancelledError:  # the server wants the place back: the last words become final
            await asyncio.to_thread(session.close)
            if guest.leave:
                self._post({"type": "error", "message": str(guest.leave)})
        except Exception as error:
            self._post({"type": "error", "message": sentence(error)})
            with suppress(Exception):  # that of the session has just been told
                await asyncio.to_thread(session.close, flush=False)
        finally:
            self.stats = session.stats
            self.wanted = None
            if self.changing:
                await self.changing
            self.done = True
            self.wake.set()
            with suppress(WebSocketDisconnect, RuntimeError):  # the page may be gone by now
                await sender
                await self.socket.close(_code(guest))

    def _open(self, first: Mapping[str, Any], hotwords: tuple[Hotword, ...]) -> LiveSession:
        return LiveSession(self.recognizer, float(first["rate"]), self._on_event, latency=first.get("latency"),
                           hotwords=None if first.get("hotwords") is None else hotwords)

    async def _receive(self, session: LiveSession, guest: Guest) -> None:
        """Sound and settings until the page says that it is finished."""
        while True:
            with guest.waiting:
                message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            if message.get("bytes") is not None:
                session.push(np.frombuffer(message["bytes"], dtype="<i2"))
                continue
            settings = _parse(message.get("text"))
            if settings.get("finish"):
                return
            if "hotwords" in settings:
                self.wanted = settings["hotwords"]
                if self.changing is None or self.changing.done():
                    self.changing = asyncio.create_task(self._change(session, guest))
            if "latency" in settings:
                try:
                    session.set_latency(settings["latency"])
                except (ValueError, TypeError) as error:
                    self._post({"type": "error", "message": sentence(error)})

    async def _change(self, session: LiveSession, guest: Guest) -> None:
        """New hot words, which take a second to build: one list after another, and of those that came meanwhile the
        newest."""
        while self.wanted is not None:
            wanted, self.wanted = self.wanted, None
            before = guest.hotwords
            try:
                guest.hold(hotwords := await asyncio.to_thread(parse_list, wanted))
                await asyncio.to_thread(session.set_hotwords, hotwords)
            except RillError as error:
                guest.hold(before)
                self._post({"type": "error", "message": sentence(error)})

    def _on_event(self, event: Event, lag: float) -> None:
        """On the session's worker thread."""
        self.loop.call_soon_threadsafe(self._post, {**event.to_dict(), "lag": round(lag, 3)})

    def _post(self, message: dict[str, Any]) -> None:
        if self.outbox and message["type"] == self.outbox[-1]["type"] == "partial":
            self.outbox.pop()  # a page that reads slowly gets the newest one only
        self.outbox.append(message)
        self.wake.set()

    async def _send(self, session: LiveSession) -> None:
        while True:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.wake.wait(), STATS_EVERY)
            self.wake.clear()
            done = self.done
            while self.outbox:
                await self.socket.send_json(self.outbox.popleft())
            stats = session.stats
            worst = stats.latency.seconds(self.recognizer.seconds_per_frame)
            await self.socket.send_json({
                "type": "stats", "heard": round(stats.heard, 3), "lag": round(stats.lag, 3),
                "dropped": round(stats.dropped, 3), "worst": round(worst, 3), "behind": stats.behind})
            if done:
                await self.socket.send_json({"type": "end"})
                return

    async def give_up(self, error: Exception, code: int = DONE) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):
            await self.socket.send_json({"type": "error", "message": sentence(error)})
            await self.socket.close(code)


def _code(guest: Guest) -> int:
    return getattr(guest.leave, "code", DONE)


def _parse(text: str | None) -> dict[str, Any]:
    settings = json.loads(text or "")
    if not isinstance(settings, dict):
        raise ValueError("A message of the page must be a JSON object.")
    return settings


def sentence(error: Exception) -> str:
    """What a person is told: our own errors speak for themselves, others are named."""
    return str(error) if isinstance(error, (RillError, ValueError)) else f"Recognition stopped: {error!r}."


async def transcript(request: Request) -> Response:
    """The page's segments (as in JSON transcripts) as a file; the page keeps them, so that no session needs to."""
    try:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_REQUEST:
                raise ValueError("it is too long")
        format = request.path_params["format"]
        text = await asyncio.to_thread(lambda: render(parse_transcript(json.loads(body)), format))
    except (RillError, ValueError, TypeError, KeyError, RecursionError) as error:
        return PlainTextResponse(f"This is no transcript: {error}", status_code=400)
    return PlainTextResponse(text)


def parse_transcript(data: Mapping[str, Any]) -> Transcript:
    """The inverse of `Transcript.to_dict`. Raises KeyError, TypeError or ValueError for anything else."""
    segments = []
    for segment in data["segments"]:
        words = tuple(Word(str(w["word"]), float(w["start"]), float(w["end"]), float(w["confidence"]))
                      for w in segment["words"])
        segments.append(Final(words, float(segment["start"]), float(segment["end"])))
    return Transcript(tuple(segments), float(data["duration"]))
