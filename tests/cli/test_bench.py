"""`asr bench`: a table of measured speeds."""

from __future__ import annotations

import re

import pytest

from asr.audio import sample
from asr.cli import bench
from tests.conftest import CLIPS, Asr


@pytest.mark.model
def test_it_measures_loading_recordings_and_live_speech(asr: Asr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "sample", lambda: CLIPS / "kathleen-0.flac")  # 3 s instead of 27
    monkeypatch.setattr(bench, "RECORDING_S", 6)
    code, table, said = asr("bench", "--int8")
    assert code == 0 and "Live speech, balanced" in said and "checkpoint en-small" in table
    rows = {
        cells[0]: cells[1:]
        for line in table.splitlines()
        if line.startswith("| ") and (cells := [cell.strip() for cell in line.strip("|").split("|")])
    }
    assert rows.pop("what") == ["speed", "detail"]
    assert list(rows) == [
        "loading, with language model",
        *(f"recordings, {name}" for name in ("greedy", "language model")),
        *(f"live, {name}" for name in ("fast", "balanced", "accurate")),
    ]
    for speed, detail in rows.values():
        assert float(re.search(r"[\d.]+", speed)[0]) > 0 and detail
