"""The learning rate over a training: warm-up, hold, cosine."""

from __future__ import annotations

import math


def learning_rate(
    update: int, updates: int, *, peak: float, warmup: int, hold: float = 0.0, final: float = 0.01
) -> float:
    """The rate at an update, counted from 0, of so many.

    Args:
        warmup: updates of the linear rise to `peak`; at most half of all.
        hold: share of the updates, the warm-up included, after which the cosine begins.
        final: share of `peak` at which the cosine (Loshchilov & Hutter 2017, arXiv 1608.03983) ends.
    """
    warmup = min(warmup, updates // 2)
    if update < warmup:
        return peak * (update + 1) / warmup
    held = max(hold * updates, warmup)
    if update < held:
        return peak
    fraction = (update - held) / max(1, updates - held)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * fraction)))
