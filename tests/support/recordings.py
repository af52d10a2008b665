"""Files as other programs write them, in any container and codec."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction

import av
import numpy as np


def encode(
    target, samples, rate, codec, sample_format, channels=1, container=None, video=False, options=None, bit_rate=None
):
    """Writes a file with PyAV, with a black film beside the sound where `video` is true."""
    with av.open(target, "w", format=container, options=options or {}) as out:
        layout = {1: "mono", 2: "stereo", 8: "7.1", 12: "7.1.4"}[channels]
        if video:
            film = out.add_stream("mpeg4", rate=5)
            film.width = film.height = 64
            film.pix_fmt = "yuv420p"
        sound = out.add_stream(codec, rate=rate, layout=layout)
        sound.format = sample_format
        if bit_rate:
            sound.bit_rate = bit_rate
        if video:
            for _ in range(5):
                frame = av.VideoFrame(64, 64, "yuv420p")
                out.mux(film.encode(frame))
            out.mux(film.encode(None))
        for start in range(0, len(samples), rate):
            piece = np.repeat(samples[None, start : start + rate], channels, axis=1)
            frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), start
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))


def wav_bytes(samples, rate, claimed=None, bits=16):
    data = (samples * 32767).astype("<i2").tobytes()
    size = len(data) if claimed is None else claimed
    return (
        b"RIFF" + struct.pack("<I", min(size + 36, 0xFFFFFFFF)) + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, bits) + b"data" + struct.pack("<I", size) + data
    )  # fmt: skip


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
