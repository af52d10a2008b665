"""recipes/en-small/average.py: the mean of two language models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asr.decoding.neural_lm import NeuralLM
from tests.support.neural_lm import small_lm

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).parents[2] / "recipes" / "en-small" / "average.py"


def test_the_mean_of_two_models(tmp_path: Path) -> None:
    first, second, other = small_lm().trained(), small_lm().trained(), small_lm(hidden=24).trained()
    for name, weight in second.weights.items():
        second.weights[name] = 3 * np.asarray(weight)
    for name, model in (("first", first), ("second", second), ("other", other)):
        model.save(tmp_path / f"{name}.safetensors")

    def average(second: str) -> subprocess.CompletedProcess[str]:
        paths = [tmp_path / f"{name}.safetensors" for name in ("first", second, "mean")]
        return subprocess.run([sys.executable, SCRIPT, *paths], capture_output=True, text=True)

    assert average("second").returncode == 0
    mean = NeuralLM.load(tmp_path / "mean.safetensors")
    assert mean.config == first.config
    for name, weight in first.weights.items():
        np.testing.assert_allclose(mean.weights[name], 2 * np.asarray(weight), rtol=2e-3, atol=1e-4)
    refused = average("other")
    assert refused.returncode == 1 and "no mean" in refused.stderr
