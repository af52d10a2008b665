"""Raw audio against libsndfile's reading of it."""

import io

import numpy as np
import pytest
import soundfile

from asr.errors import AudioError
from asr.server.pcm import DECODERS, wav_header


@pytest.mark.parametrize("encoding, subtype", [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_g711_is_what_libsndfile_reads(encoding, subtype):
    codes = bytes(range(256))
    expected, _ = soundfile.read(
        io.BytesIO(codes), dtype="int16", format="RAW", subtype=subtype, channels=1, samplerate=8000
    )
    assert np.array_equal(DECODERS[encoding](codes), expected)


def wav(channels: int = 1, subtype: str = "PCM_16") -> tuple[bytes, np.ndarray]:
    samples = np.arange(-400, 400, dtype=np.int16).reshape(-1, channels)
    file = io.BytesIO()
    soundfile.write(file, samples, 11_025, format="WAV", subtype=subtype)
    return file.getvalue(), samples


def test_a_wav_files_header_gives_its_rate_and_audio():
    data, samples = wav()
    rate, audio = wav_header(data)
    assert rate == 11_025 and np.array_equal(DECODERS["linear16"](audio)[:800], samples[:, 0])
    assert wav_header(samples.tobytes()) is None and wav_header(b"") is None


def test_chunks_before_the_audio_are_skipped():
    data, samples = wav()
    extra = b"LIST" + (5).to_bytes(4, "little") + b"hello\0"
    _, audio = wav_header(data[:12] + extra + data[12:])
    assert np.array_equal(DECODERS["linear16"](audio)[:800], samples[:, 0])


@pytest.mark.parametrize(
    "data, hint",
    [
        (wav(2)[0], "mono 16-bit"),
        (wav(subtype="FLOAT")[0], "mono 16-bit"),
        (wav()[0][:30], "longer messages"),
        (wav()[0][:12] + b"data\0\0\0\0", "longer messages"),
    ],
)
def test_other_wav_files_are_refused(data, hint):
    with pytest.raises(AudioError, match=hint):
        wav_header(data)


def test_half_a_sample_is_refused():
    with pytest.raises(AudioError, match="3 bytes"):
        DECODERS["linear16"](b"abc")
