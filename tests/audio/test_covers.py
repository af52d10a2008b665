"""Small files with large pictures: the picture is not decoded to read the audio."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import av
import numpy as np
import pytest

SIDE = 16_000  # pixels of a square cover: a quarter of a gigabyte, and 0.25 MB as PNG
READ = """
import re, sys
from pathlib import Path
from asr.audio.reading import read_blocks
print(sum(map(len, read_blocks(sys.argv[1]))))
print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10)
"""


def png(side: int) -> bytes:
    """A gray square."""
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(1 + side)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


def mp3(cover: bytes | None) -> bytes:
    """A second of noise, with a cover in its ID3 tag."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=16_000, layout="mono")
        noise = np.random.default_rng(0).normal(0, 0.1, (1, 16_000)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if cover is None:
        return file.getvalue()
    picture = b"\0image/png\0\x03\0" + cover
    tag = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = bytes(len(tag) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + tag + file.getvalue()


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
