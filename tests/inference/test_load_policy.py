"""What is left out when computing falls behind."""

from types import SimpleNamespace

import pytest

from asr.inference.load_policy import CatchUp, LoadPolicy
from asr.model.latency import PRESETS, Latency

POLICY = LoadPolicy()


@pytest.mark.parametrize("lag, steps", [(0.0, 1), (0.39, 1), (0.41, 2), (1.3, 4), (60.0, 8)])
def test_a_lag_thins_previews(lag, steps):
    assert POLICY.interval_for_lag(lag) == steps


@pytest.mark.parametrize("delay, steps", [(0.0, 1), (0.0219, 1), (0.0221, 2), (0.0301, 6), (1.0, 16)])
def test_a_slow_model_thins_previews(delay, steps):
    assert POLICY.interval_for_delay(delay) == steps


@pytest.mark.parametrize(
    "chosen, larger",
    [
        ("fast", PRESETS["accurate"]),
        ("accurate", PRESETS["accurate"]),
        ("16,20", Latency(32, 20)),
        ("40,0", Latency(40, 0)),
    ],
)
def test_whoever_is_behind_has_larger_chunks_until_the_lag_is_gone(chosen, larger):
    stream, chosen, catch_up = SimpleNamespace(), Latency.parse(chosen), CatchUp()
    lags = {1.9: chosen, 2.1: larger, 0.5: larger, 0.3: chosen, 1.0: chosen}
    assert {lag: catch_up.adapt(stream, chosen, lag) for lag in lags} == lags
    assert stream.preview_interval_steps == 3 and not catch_up.behind
