"""Recordings that grow: valid after every write."""

import numpy as np
import soundfile

from asr.audio.wav import WavWriter


def test_wav_is_valid_after_every_write(tmp_path):
    wav = WavWriter(tmp_path / "new" / "a.wav", 44_100)
    for blocks in range(4):
        sound, rate = soundfile.read(tmp_path / "new" / "a.wav")
        assert (len(sound), rate) == (100 * blocks, 44_100)
        wav.write(np.full((100, 2), [0.25, 0.75], np.float32))
    wav.write(np.array([2.0, -2.0], np.float32))
    wav.close()
    sound, _ = soundfile.read(tmp_path / "new" / "a.wav")
    assert np.allclose(sound[:400], 0.5, atol=1e-4) and np.allclose(np.abs(sound[-2:]), 1, atol=1e-4)


def test_wav_beyond_its_format_says_unknown(tmp_path):
    wav = WavWriter(tmp_path / "a.wav", 48_000)
    wav._bytes = 2**32
    wav.write(np.zeros(10, np.float32))
    assert (tmp_path / "a.wav").read_bytes()[40:44] == b"\xff" * 4
