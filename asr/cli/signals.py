"""Signals end a command in order: what is finished is written, and the rest is not begun."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TypeVar

T = TypeVar("T")
STATUS = 128 + signal.SIGTERM  # of the process, as shells give it


class OrderlySigterm:
    """Within it SIGTERM ends the iterations over `until`, but never the work of their bodies; then the process.

    with OrderlySigterm() as sigterm:
        for outcome in sigterm.until(outcomes):
            write(outcome)
    """

    def __init__(self) -> None:
        self._came = self._waiting = False

    def until(self, items: Iterator[T]) -> Iterator[T]:
        while not self._came:
            try:
                self._waiting = True
                item = next(items)
            except (StopIteration, _Came):
                return
            finally:
                self._waiting = False
            yield item

    def __enter__(self) -> OrderlySigterm:
        self._before = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGTERM, self._before)
        if self._came and error is None:
            raise SystemExit(STATUS)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        if self._waiting:
            raise _Came


class _Came(BaseException):
    pass


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets, once; another one acts as usual."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        restore()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield stop
    finally:
        restore()
