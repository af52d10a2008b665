"""What a live stream asks of the model: a turn for every few mel frames. Turns of many streams run as one batch.

A turn commits every chunk whose look-ahead has been heard, then looks, if it is asked to, at the frames that wait.
Windows of different widths share a batch: the shorter ones are padded, and the backward RNN starts at each one's end.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from asr.decoding.decoder import Emissions
from asr.model.latency import Latency
from asr.model.streaming import StreamingModel, StreamState


@dataclass
class Turn:
    state: StreamState
    mel: Tensor  # (n, bands) new mel frames
    latency: Latency
    last: bool = False  # the utterance ends with them
    look: bool = True  # also at the frames that cannot be committed yet

    @property
    def hurried(self) -> bool:
        """Whether somebody waits for what comes of it."""
        return self.look or self.last


@dataclass
class Heard:
    """What a turn gives: natural-log probabilities, float32 arrays (frames, V) of every head."""

    committed: list[Emissions] = field(default_factory=list)
    provisional: Emissions | None = None  # of frames right of the committed ones
    complete: bool = False  # whether these are all the frames that wait


@torch.inference_mode()
def take(model: StreamingModel, turns: Sequence[Turn]) -> list[Heard]:
    """Run the turns of different streams together. Their states move on; emissions are those of each turn alone."""
    model.push_all([turn.state for turn in turns], [turn.mel for turn in turns], [turn.last for turn in turns])
    heard = [Heard() for _ in turns]
    for latency in dict.fromkeys(turn.latency for turn in turns):
        rows = [row for row in zip(turns, heard, strict=True) if row[0].latency == latency]
        while rows := [row for row in rows if _unfinished(*row)]:
            batch = _together(rows)
            most = len(batch) if model.together else 1
            for first in range(0, len(batch), most):
                _run(model, latency, batch[first:first + most])
    return heard


def _unfinished(turn: Turn, heard: Heard) -> bool:
    seen = 0 if heard.provisional is None else _length(heard.provisional)
    heard.complete = seen == turn.state.frames.shape[1]
    return _ready(turn) or (turn.look and not heard.complete)


def _together(rows: list[tuple[Turn, Heard]]) -> list[tuple[Turn, Heard]]:
    """Of streams with one latency those that go first: all of them, or, where the looks' windows would be padded to the
    chunks' for more than a batch of their own costs, those that have a chunk."""
    ready = [row for row in rows if _ready(row[0])]
    looks = [turn.state.frames.shape[1] for turn, _ in rows if not _ready(turn)]
    if not ready or not looks:
        return rows
    latency = rows[0][0].latency
    padding = len(looks) * (latency.chunk + latency.look_ahead) - sum(looks)
    return ready if padding > max(looks) else rows


def _ready(turn: Turn) -> bool:
    return turn.state.ready(turn.latency.chunk, turn.latency.look_ahead)


def _run(model: StreamingModel, latency: Latency, rows: Sequence[tuple[Turn, Heard]]) -> None:
    """One batch: the next chunk of the streams that have one, all that waits of the others."""
    states = [turn.state for turn, _ in rows]
    commits, widths = [], []
    for turn, _ in rows:
        waiting, ready = turn.state.frames.shape[1], _ready(turn)
        commits.append(min(latency.chunk, waiting) if ready else 0)
        widths.append(min(latency.chunk + latency.look_ahead, waiting) if ready else waiting)
    for (_, heard), emissions, commit, width in zip(rows, model.run_all(states, commits, widths), commits, widths,
                                                    strict=True):
        arrays = {head: values.cpu().numpy() for head, values in emissions.items()}
        if commit:
            heard.committed.append({head: values[:commit] for head, values in arrays.items()})
        heard.provisional = {head: values[commit:] for head, values in arrays.items()} if commit < width else None


def _length(emissions: Emissions) -> int:
    return len(next(iter(emissions.values())))
