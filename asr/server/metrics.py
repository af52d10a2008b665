"""What the server counts and measures, for Prometheus: `GET /metrics`."""
from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from asr.inference.batching import Batcher, Pool
from asr.inference.live import Stats

SIZES = (1, 2, 4, 8, 16, 32, 64)
DELAYS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)  # seconds
FINALS = (0.5, 0.8, 1.0, 1.1, 1.2, 1.3, 1.5, 2, 3, 5, 10)  # seconds; a pause of 0.8 is part of them


class Metrics:
    """One registry a server, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.sessions = Gauge("rill_sessions", "Speakers connected now.", ["door"], registry=registry)
        self.uploads = Gauge("rill_uploads", "Recordings being transcribed now.", registry=registry)
        self.refused = Counter("rill_refused", "Clients that found no place.", ["reason"], registry=registry)
        self.ended = Counter("rill_ended", "Live sessions that ended, by their WebSocket close code.", ["code"],
                             registry=registry)
        self.audio = Counter("rill_audio_seconds", "Sound that was recognised, in seconds.", ["door"],
                             registry=registry)
        self.dropped = Counter("rill_dropped_seconds", "Sound of the browser demo that was lost because the computer "
                                                       "was too slow; the other doors hold their clients up instead.",
                               registry=registry)
        self.finals = Counter("rill_finals", "Final texts through Vosk's protocol.", registry=registry)
        self.latency = Histogram("rill_final_latency_seconds",
                                 "From the arrival of the end of an utterance's last word to its final text, through "
                                 "Vosk's protocol; the demo's page shows its own.",
                                 buckets=FINALS, registry=registry)
        self.heard = 0.0  # seconds of live sound
        self.lag = Gauge("rill_event_loop_lag_seconds", "How late the event loop is.", registry=registry)
        self.work = Counter("rill_model_seconds", "Time in which threads ran the model; of second passes the beam "
                                                  "search too.", ["pass"], registry=registry)
        self.delay = Histogram("rill_model_delay_seconds", "From asking the model to its answer, mean of a batch.",
                               ["pass"], buckets=DELAYS, registry=registry)
        self.batch = Histogram("rill_batch_size", "Streams, or utterances, in a batch.", ["pass"], buckets=SIZES,
                               registry=registry)
        self.queue = Gauge("rill_queue", "Questions to the model that wait for a batch.", ["pass"], registry=registry)
        self.factor = Gauge("rill_real_time_factor", "Model seconds for each second of live sound, since the start; of "
                                                     "late: rate(rill_model_seconds_total) / "
                                                     "rate(rill_audio_seconds_total).", registry=registry)
        self.previews = Gauge("rill_preview_every", "Steps of 160 ms from one provisional pass of a stream to the "
                                                    "next: 1 at ease, more under load.", registry=registry)

    def watch(self, batcher: Batcher) -> None:
        """Reports what the batcher does."""
        worked = {"live": 0.0, "second": 0.0}

        def follow(name: str, pool: Pool) -> None:
            def on_batch(size: int, seconds: float, delay: float) -> None:
                worked[name] += seconds
                self.work.labels(name).inc(seconds)
                self.batch.labels(name).observe(size)
                self.delay.labels(name).observe(delay)

            pool.on_batch = on_batch
            self.queue.labels(name).set_function(lambda: pool.waiting)

        follow("live", batcher.turns)
        follow("second", batcher.passes)
        self.previews.set_function(lambda: batcher.preview_every)
        self.factor.set_function(lambda: sum(worked.values()) / max(self.heard, 1e-9))
        self.lag.set_function(lambda: batcher.lag)

    def recognised(self, door: str, seconds: float) -> None:
        self.heard += seconds
        self.audio.labels(door).inc(seconds)

    def demo(self, stats: Stats) -> None:
        """A session of the browser demo has ended."""
        self.recognised("demo", stats.heard - stats.dropped)
        self.dropped.inc(stats.dropped)

    def left(self, code: int) -> None:
        """A live session ended with this close code; clients may choose from 3000 on."""
        self.ended.labels(code if code < 3000 else "other").inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
