"""Recordings in one request, whatever protocol they come by: room for them, hot words, limits, the shutdown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, nullcontext

from fastapi import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from asr.audio.reading import Source
from asr.decoding.hotwords import Hotword, parse_list
from asr.server.responses import error_response
from asr.server.service import Busy, Service
from asr.text.results import Final

SHUTDOWN_MARGIN_S = 5.0  # before the deadline of the shutdown: the server gives up recordings that are not done
Part = tuple[float, list[Final]]  # seconds read so far, new segments


class UploadMiddleware:
    """An ASGI middleware that refuses a recording before it is received, where the service has no room for it."""

    def __init__(self, app: ASGIApp, service: Service, paths: Sequence[str]) -> None:
        self.app, self.service, self.paths = app, service, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self.paths or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        with ExitStack() as room:
            try:
                room.enter_context(self.service.receive_upload())
            except Busy as error:
                await error_response(503, str(error))(scope, receive, send)
            else:
                await self.app(scope, receive, send)


async def parse_hotwords(service: Service, phrases: Sequence[str]) -> tuple[Hotword, ...]:
    """What a client expects; nothing without the language model that hot words need. Raises HotwordError."""
    if service.recognizer.engine.language_model is None:
        return ()
    return await asyncio.to_thread(parse_list, phrases)


async def recognize(
    service: Service,
    request: Request,
    recording: Source,
    hotwords: tuple[Hotword, ...],
    *,
    sample_rate: float | None = None,
    punctuate: bool | None = None,
    alternatives: int = 0,
) -> AsyncIterator[Part]:
    """The recording's parts, until its end or until the client disconnects. Raises AudioError, Busy, HTTPException."""
    longest = service.options.session_s
    with service.upload(), service.phrase_list(hotwords) if hotwords else nullcontext():
        recognizer = service.recognizer
        if hotwords:
            recognizer = await asyncio.to_thread(recognizer.expecting, hotwords)
        parts = recognizer.transcribe_parts(
            recording, sample_rate=sample_rate, punctuate=punctuate, alternatives=alternatives
        )
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            if part[0] > longest:
                raise HTTPException(413, f"The recording lasts longer than {longest:g} s, the server's limit.")
            if time.monotonic() > service.deadline - SHUTDOWN_MARGIN_S:
                raise Busy("The server is shutting down: send the recording again in a minute.")
            yield part
            if await request.is_disconnected():
                return
