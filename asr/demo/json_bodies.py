"""JSON that Gradio would fail on with a traceback is refused before it comes there."""

from __future__ import annotations

import asyncio
import json

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_JSON_BYTES = 16_000_000  # a transcript of days; the page's other requests have some hundred


class JSONMiddleware:
    """Answers 400 to JSON that is broken, nested too deeply, no text (it can hold half a surrogate pair), or has
    numbers beyond JSON's: NaN, and 1e999."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "json" not in Headers(scope=scope).get("content-type", "").lower():
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more and len(body) <= MAX_JSON_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > MAX_JSON_BYTES:
            await PlainTextResponse(f"JSON may have {MAX_JSON_BYTES} bytes at most.", 413)(scope, receive, send)
            return
        try:
            await asyncio.to_thread(check, body)
        except (ValueError, RecursionError):
            await PlainTextResponse("This JSON cannot be used.", 400)(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, replay, send)


def check(body: bytes) -> None:
    """Raises ValueError or RecursionError."""
    json.dumps(json.loads(body or b"null"), ensure_ascii=False, allow_nan=False).encode()
