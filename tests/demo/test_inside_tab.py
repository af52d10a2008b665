"""The demo's look inside the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import asr
from asr.demo import inside_tab

ONE = Path(__file__).parents[1] / "clips" / "kathleen-1.flac"


@pytest.fixture(scope="module")
def recognizer() -> asr.Recognizer:
    return asr.load(device="cpu")


def test_inside_the_network(recognizer, tmp_path):
    html = inside_tab.look_inside(recognizer, str(ONE), "Layer 2", next(iter(inside_tab.LIVE_CHOICES)))
    assert "<svg" in html and ">expectancy<" in html and "layer 2" in html
    sf.write(tmp_path / "short.wav", np.zeros(100), 16_000)
    assert "too short" in inside_tab.look_inside(recognizer, str(tmp_path / "short.wav"), "Layer 1", "fast (8, 4)")
    assert inside_tab.look_inside(recognizer, None, "Layer 1", "fast (8, 4)") == ""
