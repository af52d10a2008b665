"""`asr evaluate`: the table, and the figures as JSON."""

import json
from pathlib import Path

import pytest

from tests.conftest import CLIPS, Asr


@pytest.fixture(autouse=True)
def loaded(recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.inference.recognizer.load", lambda *_, **__: recognizer)


def test_table_and_figures(asr: Asr, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    status, out, err = asr("evaluate", CLIPS / "manifest.jsonl", "--limit", 1, "--latency", "16,8", "--output", report)
    assert (status, err) == (0, "")
    figures = json.loads(report.read_text())
    assert figures["latency"] == [16, 8] and figures["streamed"] is False and figures["lm"] is True
    assert set(figures["corpora"]) == {"commonvoice1", "kathleen", "ljspeech", "all"}
    assert f"{100 * figures['corpora']['all']['wer']:.1f} [" in out and "0 utterances with digits left out" in out


def test_a_live_stream_has_no_full_context(asr: Asr) -> None:
    status, _, err = asr("evaluate", CLIPS / "manifest.jsonl", "--streamed", "--latency", "offline")
    assert status == 1 and "cannot wait for full context" in err
