"""Tasks in processes: one that dies costs nothing but its own task, and none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from asr.inference.workers import run_tasks

pytestmark = pytest.mark.e2e
PATIENCE_S = 60.0


def set_up() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def work(folder: Path, task: str, report: Callable[[str], None]) -> str:
    """Notes that it was tried, and by whom; some tasks kill their process, or do not end."""
    with open(folder / task, "a") as tried:
        tried.write(f"{os.getpid()}\n")
    if task == "kills" or (task == "kills once" and (folder / task).read_text().count("\n") == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "raises":
        raise ValueError("not this one")
    if task.startswith("hangs"):
        time.sleep(PATIENCE_S)
    report(task)
    return task.upper()


def tries(folder: Path, task: str) -> list[int]:
    path = folder / task
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)


def test_a_death_costs_its_own_task_alone(tmp_path: Path) -> None:
    tasks = ["a", "kills", "b", "c", "kills once", "d", "e"]
    reports: list[str] = []
    found = list(run_tasks(partial(work, tmp_path), tasks, 2, set_up, on_report=reports.append))
    assert dict(found) == {task: None if task == "kills" else task.upper() for task in tasks} and len(found) == 7
    assert {task for task, _ in found[-2:]} == {"kills", "kills once"}  # tried again, alone, once all others are done
    assert {task: len(tries(tmp_path, task)) for task in tasks} == dict.fromkeys(tasks, 1) | {
        "kills": 2,
        "kills once": 2,
    }
    assert sorted(reports) == sorted(set(tasks) - {"kills"})


def test_an_exception_ends_all_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not this one"):
        list(run_tasks(partial(work, tmp_path), ["hangs", "raises"], 2, set_up))
    assert not any(is_alive(process) for task in ("hangs", "raises") for process in tries(tmp_path, task))


def test_leaving_the_iteration_ends_the_processes(tmp_path: Path) -> None:
    outcomes = run_tasks(partial(work, tmp_path), ["a", "hangs"], 2, set_up)
    assert next(outcomes) == ("a", "A")
    wait_until(lambda: bool(tries(tmp_path, "hangs")))
    outcomes.close()
    assert not is_alive(tries(tmp_path, "hangs")[0])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_the_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "from functools import partial; from pathlib import Path; from asr.inference.workers import run_tasks\n"
        "from tests.inference.test_workers import set_up, work\n"
        "if __name__ == '__main__':\n"
        f"    list(run_tasks(partial(work, Path({str(tmp_path)!r})), ['hangs 1', 'hangs 2'], 2, set_up))"
    )
    (tmp_path / "main.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, tmp_path / "main.py"], env=environment)
    wait_until(lambda: all(tries(tmp_path, f"hangs {number}") for number in (1, 2)))
    processes = [tries(tmp_path, f"hangs {number}")[0] for number in (1, 2)]
    assert all(map(is_alive, processes))
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(is_alive, processes)))
