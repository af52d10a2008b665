"""Recordings of strangers, decoded in a process of their own: the same samples, and nothing worse than an error."""

import tempfile

import numpy as np
import pytest
import soundfile

from asr.audio.isolated import Isolated
from asr.audio.reading import AudioWarning, read_blocks
from asr.errors import AudioError
from tests.conftest import CLIPS

pytestmark = pytest.mark.e2e
FLAC = CLIPS / "ljspeech-2.flac"


def read(file, name="talk.flac", **limits) -> np.ndarray:
    return np.concatenate(list(read_blocks(Isolated(file, name, **limits))))


def test_the_same_samples_from_files_and_uploads():
    expected = np.concatenate(list(read_blocks(FLAC)))
    with FLAC.open("rb") as file:
        np.testing.assert_array_equal(read(file), expected)
    with tempfile.SpooledTemporaryFile(max_size=1 << 20) as upload:  # as Starlette keeps it: small ones in memory
        upload.write(FLAC.read_bytes())
        np.testing.assert_array_equal(read(upload), expected)


def test_errors_and_warnings_are_those_of_the_recording():
    with tempfile.TemporaryFile() as file:
        file.write(b"no sound at all")
        with pytest.raises(AudioError, match=r"^notes\.txt: is not audio that can be read"):
            read(file, "notes.txt")
        file.seek(0)
        file.write(FLAC.read_bytes()[:30_000])
        with pytest.warns(AudioWarning, match=r"^-o -c: damaged or cut short") as caught:
            assert len(read(file, "-o -c"))
        assert len(caught) == 1


def test_too_much_time_is_an_error():
    """Of four hours of silence, a file without blocks on the disk."""
    with tempfile.TemporaryFile() as file:
        soundfile.write(file, np.zeros(0, np.int16), 48_000, format="WAV")
        file.flush()
        file.seek(40)
        file.write(b"\xff" * 4)  # the size of a WAV whose writer could not know it
        file.truncate(4 * 3600 * 96_000)
        with pytest.raises(AudioError, match=r"talk\.wav: decoding it takes too much time or memory"):
            read(file, "talk.wav", cpu_s=1)


def test_too_much_memory_is_an_error():
    with tempfile.TemporaryFile() as file:
        soundfile.write(file, np.zeros((3 * 384_000, 8), np.int16), 384_000, format="WAV")
        with pytest.raises(AudioError, match=r"talk\.wav: decoding it takes too much time or memory"):
            read(file, "talk.wav", memory_bytes=1 << 20)


def test_a_reader_that_leaves_ends_the_process(monkeypatch):
    started, popen = [], Isolated.blocks.__globals__["subprocess"].Popen
    monkeypatch.setattr(
        "asr.audio.isolated.subprocess.Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
    )
    with FLAC.open("rb") as file:
        blocks = read_blocks(Isolated(file, "talk.flac"), block_seconds=0.1)
        next(blocks)
        blocks.close()
    assert started[0].returncode is not None
