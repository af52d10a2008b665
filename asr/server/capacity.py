"""How many requests and sockets are served at the same time: of all clients, and of one address."""

from __future__ import annotations

from collections import Counter

from starlette.types import ASGIApp, Receive, Scope, Send

from asr.server.responses import PUBLIC_PATHS, error_response

REQUESTS_PER_SESSION = 4  # pages of the demo make several requests at once
SPARE_REQUESTS = 100


class CapacityMiddleware:
    """Refuses what exceeds the capacity; one address may have half of it, so that others find room."""

    def __init__(self, app: ASGIApp, sessions: int) -> None:
        self.app = app
        self.capacity = REQUESTS_PER_SESSION * sessions + SPARE_REQUESTS
        self.active: Counter[str] = Counter()  # requests and sockets of each address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in PUBLIC_PATHS:
            await self.app(scope, receive, send)
            return
        address = (scope.get("client") or ("",))[0]
        if self.active[address] >= self.capacity // 2:
            await error_response(503, "This address has too many requests: try again later.")(scope, receive, send)
        elif self.active.total() >= self.capacity:
            await error_response(503, "The server has too many requests: try again later.")(scope, receive, send)
        else:
            self.active[address] += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self.active -= Counter([address])  # drops addresses without any
