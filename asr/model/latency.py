"""Latency as a run-time setting: how many frames are committed together, and how many the model may look ahead."""
from __future__ import annotations

from dataclasses import dataclass

FRONT_END = 0.022  # seconds from a frame's middle to the end of its last sample


@dataclass(frozen=True)
class Latency:
    """`chunk` and `look_ahead` in frames; a chunk of 0 is full context over each segment (files only)."""

    chunk: int
    look_ahead: int

    @classmethod
    def parse(cls, text: str | tuple[int, int] | Latency) -> Latency:
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

    @property
    def live(self) -> bool:
        return self.chunk > 0

    def seconds(self, seconds_per_frame: float) -> float:
        """The longest that a sound waits until it is committed, computing not counted."""
        return (self.chunk + self.look_ahead) * seconds_per_frame + FRONT_END


PRESETS = {"fast": Latency(8, 4), "balanced": Latency(16, 8), "accurate": Latency(32, 12), "offline": Latency(0, 0)}
