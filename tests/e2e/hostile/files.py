"""Hostile files for a process that reads them: recordings, and checkpoints with flipped bits."""

from __future__ import annotations

import json
import os
import random
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from asr.model import checkpoint
from asr.model.integrity import CONFIG, FILES
from tests.e2e.hostile.corpus import bombs, damaged, flip
from tests.e2e.hostile.figures import Budget, Figures

ROOT = Path(__file__).parents[3]
HANG_S = 120.0  # busy computers are slow
Answer = dict[str, object]


class Victim:
    """The process of `victim`, started again where an input ends it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.hostile.victim", self.kind],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def take(self, path: Path) -> Answer:
        """Its answer; where there is none its kind is "crash" or "hang"."""
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):  # it has died: reading will say so
            self.process.stdin.write(f"{path}\n".encode())
            self.process.stdin.flush()
        if select.select([self.process.stdout], [], [], HANG_S)[0]:
            if line := self.process.stdout.readline():
                return json.loads(line)
            answer: Answer = {"kind": "crash", "said": f"status {self.process.wait()}"}
        else:
            answer = {"kind": "hang", "said": f"nothing for {HANG_S:g} s"}
        self.close()
        self._start()
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def count(figures: Figures, answer: Answer, what: str) -> None:
    figures.inputs += 1
    kind, said = str(answer["kind"]), str(answer["said"])
    if kind in ("crash", "traceback", "hang"):
        figures.note({"crash": "crashes", "traceback": "tracebacks", "hang": "hangs"}[kind], f"{what}: {said}")
        return
    figures.taken += kind != "refused"
    if kind != "taken" and ("\n" in said or not re.search(r"[.)]$", said)):
        figures.note("wrong", f"{what}: no sentence: {said}")
    figures.measured(float(str(answer["mib"])), float(str(answer["peak"])))


def attack_reading(chance: random.Random, folder: Path, budget: Budget) -> Figures:
    """Recordings: damaged ones in turn with bombs. An input that did harm stays in the folder."""
    figures = Figures("recordings")
    waiting: Iterator[tuple[str, bytes]] = bombs()
    with closing(Victim("recordings")) as victim:
        for number in budget.rounds():
            bomb = next(waiting, None) if number % 3 == 0 else None
            name, data = bomb or damaged(chance)
            path = folder / f"{number}-{name}"
            path.write_bytes(data)
            before = figures.harm
            count(figures, victim.take(path), str(path))
            if figures.harm == before:
                path.unlink()
    return figures


def attack_checkpoints(chance: random.Random, folder: Path, budget: Budget) -> Figures:
    """The shipped checkpoint with one file damaged: an error or a warning names it, and it is never used in silence."""
    figures = Figures("checkpoints")
    shipped = checkpoint.find()
    with closing(Victim("checkpoints")) as victim:
        for number in budget.rounds():
            name = FILES[number % len(FILES)]
            data = (shipped / name).read_bytes()
            changed = flip(data, chance) if chance.random() < 0.8 else data[: chance.randrange(len(data))]
            path = folder / str(number)
            path.mkdir()
            for other in shipped.iterdir():
                (path / other.name).symlink_to(other)
            (path / name).unlink()
            (path / name).write_bytes(changed)
            answer = victim.take(path)
            count(figures, answer, f"{path / name}")
            if answer["kind"] == "taken" and not (name == CONFIG and _json(changed) == _json(data)):
                figures.note("wrong", f"{path / name} was used without a word")
            elif answer["kind"] in ("taken", "refused", "warned"):
                for each in path.iterdir():
                    each.unlink()
                path.rmdir()
    return figures


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
