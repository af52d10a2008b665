"""What is left out when computing falls behind: previews first, then promptness, and audio only as the last resort.

Utterances end at the same frames, and finals say the same, whatever else is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from asr.inference.stream import Stream
from asr.model.latency import PRESETS, Latency


@dataclass(frozen=True)
class LoadPolicy:
    """Two measures of load: the lag of one session, and the delay of the model that many streams share.

    The lag is audio that waits for its stream. The delay is the time from a step's request to its result; where it
    grows, every stream leaves out previews, which cost several times the committed work.
    """

    lag_per_preview_s: float = 0.4  # each multiple of it in the lag leaves out one more preview in a row
    max_lag_interval_steps: int = 8  # from one preview to the next, because of the lag
    behind_s: float = 2.0  # lag from which chunks grow, until it has fallen below `lag_per_preview_s`
    catching_up: Latency = PRESETS["accurate"]  # at least these chunks meanwhile
    max_queue_s: float = 60.0  # lag from which audio is dropped

    easy_delay_s: float = 0.02  # without a preview left out; so a step seldom takes longer than its 0.16 s of audio
    delay_per_preview_s: float = 0.002  # each multiple of it above leaves out one more preview in a row
    max_delay_interval_steps: int = 16  # from one preview to the next, because of the delay

    def interval_for_lag(self, lag_s: float) -> int:
        """Steps from one preview of a session's stream to the next."""
        return min(self.max_lag_interval_steps, 1 + int(lag_s / self.lag_per_preview_s))

    def interval_for_delay(self, delay_s: float) -> int:
        """Steps from one preview of any stream to the next."""
        left_out = max(0, int((delay_s - self.easy_delay_s) / self.delay_per_preview_s))
        return min(self.max_delay_interval_steps, 1 + left_out)

    def is_behind(self, lag_s: float, was_behind: bool) -> bool:
        """Whether a session needs larger chunks."""
        return lag_s > self.behind_s or (was_behind and lag_s > self.lag_per_preview_s)


class CatchUp:
    """Applies the policy to one session's stream while its audio waits: fewer previews, then larger chunks."""

    def __init__(self, policy: LoadPolicy = LoadPolicy()) -> None:
        self.policy = policy
        self.behind = False

    def adapt(self, stream: Stream, latency: Latency, lag: float) -> Latency:
        """Thins out the stream's previews. Returns the latency to use: the given one, or larger chunks.

        `lag`: seconds of audio that will still wait while the next audio is worked on.
        """
        self.behind = self.policy.is_behind(lag, self.behind)
        stream.preview_interval_steps = self.policy.interval_for_lag(lag)
        larger = self.policy.catching_up
        if self.behind and latency.chunk < larger.chunk:
            return Latency(larger.chunk, max(latency.look_ahead, larger.look_ahead))
        return latency
