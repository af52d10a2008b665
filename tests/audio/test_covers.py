"""Small files with large pictures: the picture is not decoded to read the audio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.recordings import mp3, png

SIDE = 16_000  # pixels of a square cover: a quarter of a gigabyte, and 0.25 MB as PNG
READ = """
import re, sys
from pathlib import Path
from asr.audio.reading import read_blocks
print(sum(map(len, read_blocks(sys.argv[1]))))
print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10)
"""


def read(path: Path) -> tuple[int, int]:
    """Samples of a file, and the MiB that a process needs to read it."""
    done = subprocess.run(
        [sys.executable, "-c", READ, path], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    samples, peak = done.stdout.split()
    return int(samples), int(peak)


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_huge_cover_takes_no_memory(tmp_path):
    plain, covered = tmp_path / "plain.mp3", tmp_path / "covered.mp3"
    plain.write_bytes(mp3(None))
    covered.write_bytes(mp3(png(SIDE)))
    assert covered.stat().st_size < 1 << 20
    (samples, peak), (others, more) = read(plain), read(covered)
    assert samples == others > 15_000
    assert more - peak < 100
