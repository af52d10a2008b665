"""Many recordings: one after another or in several processes, a bad one not stopping the others."""

import warnings
from pathlib import Path

import pytest

from asr.audio.reading import AudioWarning
from asr.errors import AudioError, CheckpointError
from asr.inference.files import Options, transcribe_file, transcribe_files
from tests.conftest import CLIPS


def test_jobs(tmp_path: Path, recognizer) -> None:
    """Two real processes: the same transcripts as one, errors and warnings of single files, progress."""
    cut = tmp_path / "cut.flac"
    cut.write_bytes((CLIPS / "ljspeech-2.flac").read_bytes()[:30_000])
    sources = [str(CLIPS / "kathleen-0.flac"), "gone.wav", str(cut), str(CLIPS / "kathleen-2.flac")]
    worked: list[float] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = transcribe_files(
            sources,
            Options(device="cpu", punctuate=False),
            jobs=2,
            on_progress=lambda source, seconds, segments: worked.append(seconds),
        )
        outcomes = {outcome.source: outcome for outcome in found}
    for source in (sources[0], sources[3]):
        assert outcomes[source].transcript == recognizer.transcribe(source)
    assert outcomes["gone.wav"].transcript is None and "gone.wav: cannot be opened" in outcomes["gone.wav"].error
    messages = [str(each.message) for each in caught if each.category is AudioWarning]
    assert len(messages) == 1 and messages[0].startswith(f"{cut}: damaged")
    lasted = sum(outcome.transcript.duration for outcome in outcomes.values() if outcome.transcript)
    assert sum(worked) == pytest.approx(lasted)


def test_jobs_with_a_bad_checkpoint() -> None:
    """It ends all the work, as without jobs, and is not said again for every file."""
    with pytest.raises(CheckpointError, match="There is no checkpoint 'no/such'"):
        transcribe_file("a.wav", Options(checkpoint="no/such"))


def test_the_real_thing(recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Options, "load", lambda options: recognizer)
    (outcome,) = transcribe_files([str(CLIPS / "kathleen-0.flac")])
    assert outcome.transcript and outcome.transcript.text == "there was nothing on the rock"
    with pytest.raises(AudioError):
        recognizer.transcribe("gone.wav")
