"""How many requests are served at the same time, without a server around."""

import asyncio

from asr.server.capacity import CapacityMiddleware


def test_one_address_has_half_and_health_is_apart():
    async def whole():
        served, refused, end = [], [], asyncio.Event()

        async def app(scope, receive, send):
            served.append(scope["client"])
            await end.wait()

        async def send(message):
            if message["type"] == "http.response.start":
                refused.append(message["status"])

        middleware = CapacityMiddleware(app, sessions=0)

        def ask(address: str, path: str = "/v1/models") -> asyncio.Task:
            scope = {"type": "http", "path": path, "headers": [], "client": (address, 1)}
            return asyncio.create_task(middleware(scope, None, send))

        half = middleware.capacity // 2
        tasks = [ask("10.0.0.1") for _ in range(half + 3)]
        await asyncio.sleep(0)
        assert len(served) == half and refused == [503] * 3
        tasks += [ask(f"10.0.1.{number}") for number in range(half + 2)]
        await asyncio.sleep(0)
        assert len(served) == 2 * half and refused == [503] * 5
        tasks.append(ask("10.0.0.1", "/health"))
        await asyncio.sleep(0)
        assert len(served) == 2 * half + 1
        end.set()
        await asyncio.gather(*tasks)
        assert not middleware.active

    asyncio.run(whole())
