"""Tasks in processes, of which any may die, be it for want of memory, without harm to the tasks of the others.

    for source, outcome in run_tasks(transcribe, sources, 4, set_up):
        ...                                     # None where the processes that worked on it died

Each process has one task at a time, so what was lost with it is known. That task is tried once more when nothing else
runs, in a new process: several tasks at once may have wanted too much memory, of which it was not the cause.
`concurrent.futures` knows neither: there every task that was waiting fails with the one.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

POLL_INTERVAL_S = 0.5  # Windows does not interrupt a wait on Ctrl-C
LOST_WITH_PARENT = 1  # exit status

Task = TypeVar("Task")
Result = TypeVar("Result")
Work = Callable[[Task, Callable[[Any], None]], Result]


def run_tasks(
    work: Work[Task, Result],
    tasks: Sequence[Task],
    processes: int,
    initialize: Callable[[], None],
    on_report: Callable[[Any], None] = lambda report: None,
) -> Iterator[tuple[Task, Result | None]]:
    """Each task with its result, in the order in which they are done; None where two processes died over it.

    Args:
        work: (task, report) → result, called in a process; `report(value)` calls `on_report(value)` here. What it
            raises is raised here, and ends all work.
        initialize: called first in each process.

    Functions, tasks and results are pickled. The processes end with the iteration, and if this process dies.
    """
    lost: list[Task] = []
    yield from _run(work, tasks, processes, initialize, on_report, lost)
    for task in lost:
        lost_again: list[Task] = []
        yield from _run(work, [task], 1, initialize, on_report, lost_again)
        if lost_again:
            yield task, None


def _run(
    work: Work[Task, Result],
    tasks: Sequence[Task],
    processes: int,
    initialize: Callable[[], None],
    on_report: Callable[[Any], None],
    lost: list[Task],
) -> Iterator[tuple[Task, Result]]:
    """Adds the tasks whose process died to `lost`."""
    waiting = deque(tasks)
    workers: dict[Any, _Worker[Task]] = {}  # by connection

    def start() -> None:
        worker: _Worker[Task] = _Worker(work, initialize, waiting.popleft())
        workers[worker.connection] = worker

    try:
        for _ in range(min(processes, len(tasks))):
            start()
        while workers:
            for connection in wait(list(workers), POLL_INTERVAL_S):
                worker = workers[connection]
                try:
                    kind, value = worker.connection.recv()
                except (EOFError, OSError):
                    lost.append(worker.task)
                    workers.pop(connection).end()
                    if waiting:
                        start()
                    continue
                if kind == "report":
                    on_report(value)
                    continue
                if kind == "error":
                    raise value
                done = worker.task
                if waiting:
                    worker.give(waiting.popleft())
                else:
                    workers.pop(connection).end()
                yield done, value
    finally:
        for worker in workers.values():
            worker.end()


class _Worker(Generic[Task]):
    """A process and the task that it has; its connection is at its end when the process is."""

    def __init__(self, work: Work[Task, Any], initialize: Callable[[], None], task: Task) -> None:
        # A forked process can use neither CUDA nor threads that were running.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, initialize), daemon=True)
        self.process.start()
        theirs.close()  # now only the process has it
        self.give(task)

    def give(self, task: Task) -> None:
        self.task = task
        with suppress(OSError):  # it has died meanwhile: reading will say so
            self.connection.send(task)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, work: Work[Any, Any], initialize: Callable[[], None]) -> None:
    """A process: a task after another, until nobody is there to give one."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    initialize()
    with suppress(EOFError, OSError):
        while True:
            task = connection.recv()
            try:
                message = ("result", work(task, lambda value: connection.send(("report", value))))
            except Exception as error:  # the parent raises it
                message = ("error", error)
            connection.send(message)


def _end_with_parent() -> None:
    """However the parent ended, and whatever is being worked on."""
    parent = multiprocessing.parent_process()
    assert parent
    wait([parent.sentinel])
    os._exit(LOST_WITH_PARENT)
