"""Audio as clients send it, raw: 16-bit PCM and G.711; and the header of a WAV file that comes before."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from asr.errors import AudioError

_CODES = np.arange(256)


def _mu_law() -> np.ndarray:
    code = ~_CODES & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _a_law() -> np.ndarray:
    code = _CODES ^ 0x55
    exponent, mantissa = code >> 4 & 7, (code & 0x0F) << 4
    magnitude = np.where(exponent == 0, mantissa + 8, (mantissa + 0x108) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


MU_LAW, A_LAW = _mu_law(), _a_law()  # int16 samples of the 256 codes (ITU-T G.711)


def linear16(data: bytes) -> np.ndarray:
    """Signed 16-bit samples, little-endian. Raises AudioError for half a sample."""
    if len(data) % 2:
        raise AudioError(f"A message of {len(data)} bytes is no 16-bit audio: send an even number.")
    return np.frombuffer(data, dtype="<i2")


DECODERS: dict[str, Callable[[bytes], np.ndarray]] = {  # bytes of one channel → int16 samples (n,)
    "linear16": linear16,
    "mulaw": lambda data: MU_LAW[np.frombuffer(data, dtype=np.uint8)],
    "alaw": lambda data: A_LAW[np.frombuffer(data, dtype=np.uint8)],
}


def wav_header(data: bytes) -> tuple[int, bytes] | None:
    """The sample rate of a WAV file, in Hz, and the audio after its header; None where the bytes begin otherwise.

    Raises AudioError where the file is not mono 16-bit PCM, or its header is not in these bytes.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    position, rate = 12, 0
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        position += 8
        if name == b"data" and rate:
            return rate, data[position:]
        if name == b"fmt " and position + 16 <= len(data):
            format, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, position)
            if (format, channels, bits) != (1, 1, 16):
                raise AudioError(
                    "The WAV file is not mono 16-bit PCM: convert it, or send it to /v1/audio/transcriptions."
                )
        position += size + size % 2
    raise AudioError("The first message has a WAV file's beginning without all of its header: send longer messages.")
