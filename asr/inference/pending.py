"""Work that waits for futures, and the ways to wait: on a thread (`wait`) or on an event loop (`wait_async`).

A stream's work is a generator. It yields each future that it needs and is sent the result, so that it need not know
how its caller waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
Pending = Generator[Future[Any], Any, T]  # work that returns T


def wait(pending: Pending[T]) -> T:
    """Waits for each future, on the calling thread."""
    result = None
    while True:
        try:
            future = pending.send(result)
        except StopIteration as end:
            return end.value
        result = future.result()


async def wait_async(pending: Pending[T]) -> T:
    """Waits for each future without holding up the event loop."""
    result = None
    while True:
        try:
            future = pending.send(result)
        except StopIteration as end:
            return end.value
        result = await _result(future)


async def wait_in_thread(pending: Pending[T]) -> T:
    """Waits on another thread, for a recognizer that computes on the thread of its caller."""
    return await asyncio.to_thread(wait, pending)


async def _result(future: Future[T]) -> T:
    """As `asyncio.wrap_future`, but a result that is set on this event loop does not go through another thread."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    waiting = loop.create_future()

    def wake() -> None:
        if not waiting.done():
            waiting.set_result(None)

    future.add_done_callback(lambda _: wake() if threading.get_ident() == thread else loop.call_soon_threadsafe(wake))
    try:
        await waiting
    except asyncio.CancelledError:
        future.cancel()
        raise
    return future.result()
