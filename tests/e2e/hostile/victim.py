"""A process that takes hostile files, one after another: what it does to them tells whether they did it harm.

    python -m tests.e2e.hostile.victim recordings|checkpoints|speech

Each line of standard input is a path. The answer is a line of JSON: `kind` is "taken", "refused" (one sentence, in
`said`), "warned" or "traceback"; for speech, which all goes through one live stream, `said` is the text; `mib` is the
memory that the process has now, `peak` the most that it ever had.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from asr import Stream

BLOCK_S = 0.1  # of live audio


def read(path: Path) -> str:
    from asr.audio.reading import SAMPLE_RATE, duration, read_blocks

    for block in read_blocks(path):
        assert 0 < len(block) <= SAMPLE_RATE and np.isfinite(block).all()
    duration(path)
    return ""


def load(path: Path) -> str:
    from asr.decoding.beam import LanguageModel
    from asr.model import checkpoint

    LanguageModel(checkpoint.load(path))
    return ""


@cache
def stream() -> Stream:
    """One for all that comes."""
    import asr

    return asr.load(threads=1, int8=True, device="cpu", punctuate=False).stream()


def listen(path: Path) -> str:
    from asr import Final
    from asr.audio.reading import read_blocks

    events = [event for block in read_blocks(path, block_seconds=BLOCK_S) for event in stream().accept(block)]
    return " ".join(event.text for event in events if isinstance(event, Final))


def memory(pid: int | str = "self") -> tuple[float, float]:
    """MiB that a process has now, and the most that it ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, peak = (re.search(rf"{name}:\s*(\d+)", status) for name in ("VmRSS", "VmHWM"))
    assert now and peak
    return int(now[1]) / 1024, int(peak[1]) / 1024


def main(take: Callable[[Path], str]) -> None:
    from asr.errors import RillError

    for line in sys.stdin:
        kind, said = "taken", ""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                said = take(Path(line.rstrip("\n")))
            except RillError as error:
                kind, said = "refused", str(error)
            except Exception:
                kind, said = "traceback", traceback.format_exc()
        if kind == "taken" and caught:
            kind, said = "warned", str(caught[0].message)
        now, peak = memory()
        print(json.dumps({"kind": kind, "said": said, "mib": now, "peak": peak}), flush=True)


if __name__ == "__main__":
    main({"recordings": read, "checkpoints": load, "speech": listen}[sys.argv[1]])
