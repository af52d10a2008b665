"""A recording of a stranger, decoded in a process of its own: what it can do wrong stays there.

    for block in read_blocks(Isolated(file, "talk.mp4")):
        ...

Decoders are large and old programs in C. A file may be made to crash them, to have them ask for gigabytes or to keep
them busy for hours; here that ends this process and becomes an AudioError. Limits of memory and time are the operating
system's, so Windows has neither, and macOS no limit of memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from asr.audio.reading import SAMPLE_RATE, AudioWarning, read_blocks
from asr.errors import AudioError

MAX_MEMORY_BYTES = 1 << 30  # of addresses beyond those of the program itself
MAX_CPU_S = 300  # of the processor; hours of speech take a tenth
BLOCK_S = 1.0
PACKAGES = Path(__file__).parents[2]  # where `asr` is


class Isolated:
    """A source for `read_blocks`.

    Args:
        file: a binary file with a file number, such as an upload; read from its start.
        name: of the recording, for errors.
        memory_bytes, cpu_s: what decoding may take.
    """

    def __init__(self, file: BinaryIO, name: str, memory_bytes: int = MAX_MEMORY_BYTES, cpu_s: int = MAX_CPU_S) -> None:
        self.file, self.name = file, name
        self.limits = memory_bytes, cpu_s

    def blocks(self, seconds: float) -> Iterator[np.ndarray]:
        """Mono float32 at 16 kHz, (m,). Raises AudioError and warns as `read_blocks` does."""
        size = 4 * max(1, int(seconds * SAMPLE_RATE))
        environment = os.environ | {"PYTHONPATH": str(PACKAGES), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        number = self.file.fileno()  # which may put it on disk first
        self.file.flush()
        with tempfile.TemporaryFile() as report:
            process = subprocess.Popen(
                [sys.executable, "-m", "asr.audio.isolated", self.name, *map(str, self.limits)],
                stdin=number,
                stdout=subprocess.PIPE,
                stderr=report,
                env=environment,
            )
            assert process.stdout
            try:
                while data := process.stdout.read(size):
                    yield np.frombuffer(data[: len(data) // 4 * 4], np.float32)
                status = process.wait()
            finally:
                process.kill()
                process.wait()
                process.stdout.close()
            report.seek(0)
            self._conclude(status, report.read().decode(errors="replace"))

    def _conclude(self, status: int, report: str) -> None:
        try:
            said = json.loads(report.rpartition("\n")[2])
            error, cautions = str(said["error"]), [str(each) for each in said["warnings"]]
        except (ValueError, KeyError, TypeError):
            what = f"decoding it takes too much time or memory, or crashes (status {status})"
            raise AudioError(f"{self.name}: {what}; convert it to WAV.") from None
        for caution in cautions:
            warnings.warn(caution, AudioWarning, stacklevel=4)
        if error:
            raise AudioError(error)


class _Named:
    """Standard input under the recording's name."""

    def __init__(self, name: str) -> None:
        self.name, file = name, sys.stdin.buffer
        self.read, self.seek, self.tell, self.seekable = file.read, file.seek, file.tell, file.seekable


def _decode(name: str) -> str:
    """Standard input's samples to standard output; returns what was wrong with it."""
    try:
        for block in read_blocks(_Named(name), block_seconds=BLOCK_S):  # type: ignore[arg-type]
            sys.stdout.buffer.write(block.tobytes())
            sys.stdout.buffer.flush()
    except AudioError as error:
        return str(error)
    return ""


def _limit(memory_bytes: int, cpu_s: int) -> None:
    try:
        import resource
    except ModuleNotFoundError:
        return  # Windows
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _main() -> None:
    name, memory_bytes, cpu_s = sys.argv[1:]
    _limit(int(memory_bytes), int(cpu_s))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AudioWarning)
        error = _decode(name)
    cautions = [str(each.message) for each in caught if issubclass(each.category, AudioWarning)]
    sys.stderr.write("\n" + json.dumps({"error": error, "warnings": cautions}))


if __name__ == "__main__":
    _main()
