"""`asr tune`: a table, and a config.json in which only decoding settings have changed."""

import dataclasses
from pathlib import Path

import pytest

from asr.evaluation import tune
from asr.model.checkpoint import DecodingConfig, read_config
from asr.model.integrity import measure
from tests.conftest import CLIPS, Asr


def test_only_decoding_settings_change(recognizer, asr: Asr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (recognizer.engine.checkpoint.path / "config.json").read_bytes()
    monkeypatch.setattr(tune, "HALVINGS", 0)
    monkeypatch.setattr("asr.inference.recognizer.load", lambda *_, **__: recognizer)
    status, out, _ = asr("tune", CLIPS / "manifest.jsonl", "--output", tmp_path / "new")
    assert status == 0 and "lm_weight" in out and "cross-validated" in out
    assert (recognizer.engine.checkpoint.path / "config.json").read_bytes() == before
    old, new = recognizer.engine.checkpoint.config, read_config(tmp_path / "new" / "config.json")
    assert new.decoding.greedy_confidence and len(new.decoding.lm_confidence) > len(new.decoding.greedy_confidence)
    assert new.files == old.files | {"config.json": measure(tmp_path / "new" / "config.json")}
    assert dataclasses.replace(new, decoding=old.decoding) == old
    changed = {
        "lm_weight",
        "word_score",
        "prior_scale",
        "neural_weight",
        "margin",
        "lm_confidence",
        "greedy_confidence",
    }
    assert all(
        getattr(new.decoding, field.name) == getattr(old.decoding, field.name)
        for field in dataclasses.fields(DecodingConfig)
        if field.name not in changed
    )
