"""What attacks have seen: how many inputs, and what harm they did."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Figures:
    name: str
    inputs: int = 0
    taken: int = 0  # what was not refused
    crashes: int = 0
    tracebacks: int = 0
    hangs: int = 0
    wrong: int = 0  # results that are not what they should be: damage that was used, something lost or left behind
    mib: list[float] = field(default_factory=list)  # memory of what is attacked, after each input
    peak_mib: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def harm(self) -> int:
        return self.crashes + self.tracebacks + self.hangs + self.wrong

    @property
    def growth_mib(self) -> float:
        """In the second half of the attack: by then caches are full, and what still grows grows without end."""
        return self.mib[-1] - self.mib[len(self.mib) // 2] if self.mib else 0.0

    def measured(self, mib: float, peak: float) -> None:
        """The memory of what is attacked, after an input: now, and the most so far."""
        self.mib.append(mib)
        self.peak_mib = max(peak, self.peak_mib)

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
    counted = ("inputs", "taken", "crashes", "tracebacks", "hangs", "wrong")
    names = ["attack", *counted, "memory at half, MiB", "at the end", "peak"]
    rows = [names, ["---"] * len(names)]
    for each in all_figures:
        memory = (each.mib[len(each.mib) // 2], each.mib[-1], each.peak_mib) if each.mib else ()
        counts = (str(getattr(each, name)) for name in counted)
        rows.append([each.name, *counts, *(f"{mib:.0f}" for mib in memory), *["-"] * (3 - len(memory))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
