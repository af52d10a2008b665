"""A part of the application that takes seconds to load, and does so while the rest already serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send


class BackgroundPart:
    """Middleware that hands requests of some paths to a part of its own; they wait until it is loaded.

    `load` makes the part in a thread; `run` calls it, and keeps the part alive until it is cancelled.
    """

    def __init__(self, load: Callable[[], FastAPI], *paths: str) -> None:
        self.load, self.paths = load, paths
        self.loaded: asyncio.Future[FastAPI] | None = None

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope.get("path", "")
            if self.loaded is not None and any(path == mine or path.startswith(f"{mine}/") for mine in self.paths):
                app_of_path: ASGIApp = await asyncio.shield(self.loaded)
                await app_of_path(scope, receive, send)
            else:
                await app(scope, receive, send)

        return serve

    async def run(self) -> None:
        self.loaded = asyncio.get_running_loop().create_future()
        try:
            part = await asyncio.to_thread(self.load)
        except Exception as error:
            self.loaded.set_exception(error)  # whoever asks for one of the paths raises it, and it is logged
            return
        async with part.router.lifespan_context(part):
            self.loaded.set_result(part)
            await asyncio.Event().wait()
