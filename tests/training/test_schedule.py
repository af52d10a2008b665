"""The learning rate goes by updates."""

from itertools import pairwise

import pytest

from asr.training.schedule import learning_rate

SCHEDULE = {"peak": 1.0, "warmup": 100, "hold": 0.4, "final": 0.01}


def test_the_schedule_goes_by_updates() -> None:
    rates = [learning_rate(update, 1000, **SCHEDULE) for update in range(1000)]
    assert rates[0] == 0.01 and rates[49] == 0.5 and rates[99:400] == [1.0] * 301
    assert all(later < earlier for earlier, later in pairwise(rates[400:]))
    assert rates[700] == pytest.approx(0.505) and rates[-1] == pytest.approx(0.01, abs=1e-4)
    longer = [learning_rate(update, 2000, **SCHEDULE) for update in range(2000)]
    assert longer[1400] == pytest.approx(rates[700])  # stretched to the plan
