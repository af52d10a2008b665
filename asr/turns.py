"""What a live stream asks of the model: a turn for every few mel frames. Turns of many streams run as one batch.

A turn commits every chunk whose look-ahead has been heard, then looks, if it is asked to, at the frames that wait.
Windows of different widths share a batch: the shorter ones are padded, and the backward RNN starts at each one's end.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from asr.decoder import Emissions
from asr.latency import Latency
from asr.model import StreamingModel, StreamState

MOST_ROWS = 32  # streams in one batch; more of them would only let the first ones wait


@dataclass
class Turn:
    state: StreamState
    mel: Tensor  # (n, bands) new mel frames
    latency: Latency
    last: bool = False  # the utterance ends with them
    look: bool = True  # also at the frames that cannot be committed yet


@dataclass
class Heard:
    """What a turn gives: natural-log probabilities, float32 arrays (frames, V) of every head."""

    committed: list[Emissions] = field(default_factory=list)
    provisional: Emissions | None = None  # of frames right of the committed ones
    complete: bool = False  # whether these are all the frames that wait


@torch.inference_mode()
def take(model: StreamingModel, turns: Sequence[Turn]) -> list[Heard]:
    """Run the turns of different streams together. Their states move on; emissions are those of each turn alone."""
    device = model.mel_mean.device
    model.push_all([turn.state for turn in turns], [turn.mel.to(device) for turn in turns],
                   [turn.last for turn in turns])
    heard = [Heard() for _ in turns]
    for latency in dict.fromkeys(turn.latency for turn in turns):
        rows = [row for row in zip(turns, heard, strict=True) if row[0].latency == latency]
        while rows := [row for row in rows if _unfinished(*row)]:
            for first in range(0, len(rows), MOST_ROWS):
                _run(model, latency, rows[first:first + MOST_ROWS])
    return heard


def _unfinished(turn: Turn, heard: Heard) -> bool:
    seen = 0 if heard.provisional is None else _length(heard.provisional)
    heard.complete = seen == turn.state.frames.shape[1]
    return turn.state.ready(turn.latency.chunk, turn.latency.look_ahead) or (turn.look and not heard.complete)


def _run(model: StreamingModel, latency: Latency, rows: Sequence[tuple[Turn, Heard]]) -> None:
    """One batch: the next chunk of the streams that have one, all that waits of the others."""
    states = [turn.state for turn, _ in rows]
    commits, widths = [], []
    for state in states:
        waiting, ready = state.frames.shape[1], state.ready(latency.chunk, latency.look_ahead)
        commits.append(min(latency.chunk, waiting) if ready else 0)
        widths.append(min(latency.chunk + latency.look_ahead, waiting) if ready else waiting)
    for (_, heard), emissions, commit, width in zip(rows, model.run_all(states, commits, widths), commits, widths,
                                                    strict=True):
        arrays = {head: values.cpu().numpy().copy() for head, values in emissions.items()}  # the batch can go
        if commit:
            heard.committed.append({head: values[:commit] for head, values in arrays.items()})
        heard.provisional = {head: values[commit:] for head, values in arrays.items()} if commit < width else None


def _length(emissions: Emissions) -> int:
    return len(next(iter(emissions.values())))
