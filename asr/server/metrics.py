"""What the server counts and measures, for Prometheus: `GET /metrics`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from asr.inference.batching import BatchRunner
from asr.inference.pool import BatchPool
from asr.text.results import Final

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
DELAYS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
FINAL_LATENCIES_S = (0.5, 0.8, 1.0, 1.1, 1.2, 1.3, 1.5, 2, 3, 5, 10)  # the 0.8 s of silence that end an utterance count
MAX_ARRIVALS = 600  # messages whose arrival a meter remembers: a minute of 0.1 s ones


class Metrics:
    """One registry a server, so that several can live in one process.

    The label "door" is the protocol; dashboards know it by that name.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.sessions = Gauge("rill_sessions", "Live sessions open now.", ["door"], registry=registry)
        self.uploads = Gauge("rill_uploads", "Recordings being transcribed now.", registry=registry)
        self.refused = Counter("rill_refused", "Clients that were refused.", ["reason"], registry=registry)
        self.ended = Counter(
            "rill_ended", "Live sessions that ended, by their WebSocket close code.", ["code"], registry=registry
        )
        self.audio = Counter(
            "rill_audio_seconds", "Audio that was recognized, in seconds.", ["door"], registry=registry
        )
        self.dropped = Counter(
            "rill_dropped_seconds",
            "Audio of the browser demo that was left out because the "
            "computer was too slow; other protocols slow their clients down "
            "instead.",
            registry=registry,
        )
        self.finals = Counter("rill_finals", "Final texts through Vosk's protocol.", registry=registry)
        self.latency = Histogram(
            "rill_final_latency_seconds",
            "From the arrival of the end of an utterance's last word to its final text, through "
            "Vosk's protocol; the demo's page shows its own.",
            buckets=FINAL_LATENCIES_S,
            registry=registry,
        )
        self.live_s = 0.0  # seconds of live audio
        self.lag = Gauge("rill_event_loop_lag_seconds", "How late the event loop is.", registry=registry)
        self.work = Counter(
            "rill_model_seconds",
            "Time in which threads ran the model; of second passes the beam search too.",
            ["pass"],
            registry=registry,
        )
        self.delay = Histogram(
            "rill_model_delay_seconds",
            "From a request to the model until its result, mean of a batch.",
            ["pass"],
            buckets=DELAYS_S,
            registry=registry,
        )
        self.batch = Histogram(
            "rill_batch_size", "Streams, or utterances, in a batch.", ["pass"], buckets=BATCH_SIZES, registry=registry
        )
        self.queue = Gauge("rill_queue", "Requests to the model that wait for a batch.", ["pass"], registry=registry)
        self.factor = Gauge(
            "rill_real_time_factor",
            "Model seconds for each second of live audio, since the start; "
            "lately: rate(rill_model_seconds_total) / "
            "rate(rill_audio_seconds_total).",
            registry=registry,
        )
        self.previews = Gauge(
            "rill_preview_every",
            "Steps of 160 ms from one provisional pass of a stream to the next: 1 without load, more under load.",
            registry=registry,
        )

    def watch(self, batcher: BatchRunner) -> None:
        """Reports what the batcher does."""
        worked = {"live": 0.0, "second": 0.0}

        def follow(name: str, pool: BatchPool) -> None:
            def on_batch(size: int, seconds: float, delay: float) -> None:
                worked[name] += seconds
                self.work.labels(name).inc(seconds)
                self.batch.labels(name).observe(size)
                self.delay.labels(name).observe(delay)

            pool.on_batch = on_batch
            self.queue.labels(name).set_function(lambda: pool.waiting)

        follow("live", batcher.steps)
        follow("second", batcher.second_passes)
        self.previews.set_function(lambda: batcher.preview_interval_steps)
        self.factor.set_function(lambda: sum(worked.values()) / max(self.live_s, 1e-9))
        self.lag.set_function(lambda: batcher.lag)

    def recognized(self, protocol: str, seconds: float) -> None:
        """So much live audio was recognized."""
        self.live_s += seconds
        self.audio.labels(protocol).inc(seconds)

    def session_ended(self, code: int) -> None:
        """A live session ended with this close code; clients may choose from 3000 on."""
        self.ended.labels(code if code < 3000 else "other").inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)


class FinalLatency:
    """Measures a session's finals: from the arrival of the audio with an utterance's end to the final text."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.metrics, self.clock = metrics, clock
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=MAX_ARRIVALS)  # seconds of audio until then, when

    def arrived(self, seconds: float) -> None:
        """The client has sent so much audio of the session so far."""
        self._arrivals.append((seconds, self.clock()))

    def observe(self, final: Final) -> None:
        self.metrics.finals.inc()
        while self._arrivals and self._arrivals[0][0] < final.end:
            self._arrivals.popleft()
        if self._arrivals:
            self.metrics.latency.observe(self.clock() - self._arrivals[0][1])
