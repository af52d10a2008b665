"""An event loop whose time is what the test says."""

from __future__ import annotations

import asyncio


async def step() -> None:
    """Lets the other tasks go on."""
    for _ in range(5):
        await asyncio.sleep(0)


class Loop(asyncio.SelectorEventLoop):
    now = 0.0

    def time(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        self.now += seconds
        await step()
