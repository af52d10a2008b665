"""What loads in the background holds up its own paths alone."""

import asyncio
import threading

import httpx
import pytest
from fastapi import FastAPI

from asr.server.background import BackgroundPart


def application(part: BackgroundPart) -> FastAPI:
    app = FastAPI()
    app.get("/health")(lambda: "ok")
    app.get("/demonstration")(lambda: "another path")
    app.add_middleware(part)
    return app


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here")


def test_its_requests_wait_and_others_do_not():
    may_load = threading.Event()

    def load() -> FastAPI:
        assert may_load.wait(60)
        part = FastAPI()
        part.get("/demo/page")(lambda: "the page")
        return part

    async def talk() -> None:
        part = BackgroundPart(load, "/demo")
        running = asyncio.create_task(part.run())
        async with client(application(part)) as here:
            await asyncio.sleep(0)
            page = asyncio.create_task(here.get("/demo/page"))
            assert (await here.get("/health")).json() == "ok"
            assert (await here.get("/demonstration")).json() == "another path"
            assert not page.done()
            may_load.set()
            assert (await page).json() == "the page"
            assert (await here.get("/demo/nothing")).status_code == 404
        running.cancel()

    asyncio.run(talk())


def test_where_it_cannot_be_loaded_the_rest_serves():
    def load() -> FastAPI:
        raise ImportError("no page")

    async def talk() -> None:
        part = BackgroundPart(load, "/demo")
        await part.run()
        async with client(application(part)) as here:
            assert (await here.get("/health")).status_code == 200
            with pytest.raises(ImportError, match="no page"):
                await here.get("/demo/")

    asyncio.run(talk())
