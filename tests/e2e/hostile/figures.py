"""What attacks have seen: how many inputs, and what harm they did."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

WARM_UP = 25  # inputs, after which memory should grow no more


@dataclass
class Figures:
    name: str
    inputs: int = 0
    taken: int = 0  # what was not refused
    crashes: int = 0
    tracebacks: int = 0
    hangs: int = 0
    wrong: int = 0  # results that are not what they should be: damage that was used, something lost or left behind
    first_mib: float = 0.0
    last_mib: float = 0.0
    peak_mib: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def harm(self) -> int:
        return self.crashes + self.tracebacks + self.hangs + self.wrong

    @property
    def growth_mib(self) -> float:
        return self.last_mib - self.first_mib if self.first_mib else 0.0

    def measured(self, mib: float, peak: float) -> None:
        """The memory of whatever is attacked, after an input."""
        if self.inputs <= WARM_UP:
            self.first_mib = mib
        self.last_mib, self.peak_mib = mib, max(peak, self.peak_mib)

    def note(self, kind: str, what: str) -> None:
        """Count harm, and say what did it."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.notes.append(f"{self.name}, {kind}: {what}")


@dataclass
class Budget:
    """An attack goes on while there is some left, of inputs or of time."""

    inputs: int = 10**9
    seconds: float = 1e9

    def rounds(self) -> Iterator[int]:
        end = time.monotonic() + self.seconds
        for number in range(self.inputs):
            if time.monotonic() >= end:
                return
            yield number


def table(all_figures: list[Figures]) -> str:
    """Markdown."""
    names = ["attack", "inputs", "taken", "crashes", "tracebacks", "hangs", "wrong", "memory growth, MiB", "peak, MiB"]
    rows = [names, ["---"] * len(names)]
    for each in all_figures:
        counts = (each.inputs, each.taken, each.crashes, each.tracebacks, each.hangs, each.wrong)
        rows.append([each.name, *map(str, counts), f"{each.growth_mib:+.0f}", f"{each.peak_mib:.0f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
