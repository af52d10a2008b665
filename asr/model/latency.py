"""Latency as a run-time setting: how many frames are committed together, and how many the model may look ahead."""

from __future__ import annotations

from dataclasses import dataclass

FRONT_END_S = 0.022  # from a frame's middle to the end of its last sample


@dataclass(frozen=True)
class Latency:
    """`chunk` and `look_ahead` in frames; a chunk of 0 is full context over each segment (files only)."""

    chunk: int
    look_ahead: int

    @classmethod
    def parse(cls, text: LatencyLike) -> Latency:
        """A preset's name, `"16,8"`, a pair or a Latency. Raises ValueError naming what is possible."""
        if isinstance(text, Latency):
            return text
        if isinstance(text, str) and text in PRESETS:
            return PRESETS[text]
        try:
            chunk, look_ahead = (int(part) for part in (text.split(",") if isinstance(text, str) else text))
            if chunk > 0 and look_ahead >= 0:
                return cls(chunk, look_ahead)
        except (ValueError, TypeError, OverflowError):
            pass
        raise ValueError(f"Latency '{text}' is not one of {', '.join(PRESETS)}, nor two numbers C,R such as 16,8.")

    @classmethod
    def parse_live(cls, text: LatencyLike) -> Latency:
        """As `parse`, for live streams. Raises ValueError for full context, too."""
        latency = cls.parse(text)
        if not latency.live:
            raise ValueError("A live stream cannot wait for full context: choose fast, balanced, accurate or C,R.")
        return latency

    @property
    def live(self) -> bool:
        return self.chunk > 0

    def seconds(self, seconds_per_frame: float) -> float:
        """The longest time from a sound to its commitment, without the time to compute it."""
        return (self.chunk + self.look_ahead) * seconds_per_frame + FRONT_END_S


LatencyLike = str | tuple[int, int] | Latency  # what `Latency.parse` takes
PRESETS = {"fast": Latency(8, 4), "balanced": Latency(16, 8), "accurate": Latency(32, 12), "offline": Latency(0, 0)}
