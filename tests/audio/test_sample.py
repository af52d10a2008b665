"""The recording that comes with Rill."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.audio import sample
from asr.audio.reading import SAMPLE_RATE, read_blocks
from asr.errors import AudioError


def test_it_is_there_and_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert round(sum(map(len, read_blocks(sample.sample()))) / SAMPLE_RATE) == 27
    monkeypatch.setattr(sample, "__file__", str(tmp_path / "asr" / "audio" / "sample.py"))
    with pytest.raises(AudioError, match=r"sentences\.flac is missing"):
        sample.sample()
