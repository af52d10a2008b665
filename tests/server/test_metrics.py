"""What is measured, with a clock that the test sets."""

from asr.server.metrics import FinalLatency, Metrics
from asr.text.results import Final, Word


def final(end: float) -> Final:
    return Final((Word("word", 0.0, end, 0.5),), 0.0, end)


def test_final_latency_is_measured_from_the_arrival_of_the_last_word():
    metrics, now = Metrics(), 0.0
    latency = FinalLatency(metrics, clock=lambda: now)
    for seconds, now in ((0.1, 10.0), (0.2, 20.0), (0.3, 30.0)):  # noqa: B007
        latency.arrived(seconds)
    now = 33.0
    latency.observe(final(end=0.15))
    assert metrics.registry.get_sample_value("rill_final_latency_seconds_sum") == 13.0
    latency.observe(final(end=0.9))  # words beyond all audio that is remembered are counted, not measured
    assert metrics.registry.get_sample_value("rill_finals_total") == 2.0
    assert metrics.registry.get_sample_value("rill_final_latency_seconds_count") == 1.0


def test_close_codes_of_clients_are_one_label():
    metrics = Metrics()
    for code in (1000, 1001, 3000, 4999):
        metrics.session_ended(code)
    counts = {
        code: metrics.registry.get_sample_value("rill_ended_total", {"code": code})
        for code in ("1000", "1001", "other")
    }
    assert counts == {"1000": 1.0, "1001": 1.0, "other": 2.0}
