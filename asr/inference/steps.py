"""What live streams ask of the model: one step for every few mel frames. The steps of many streams run as one batch.

A step commits every chunk whose look-ahead has come; then, on request, it previews the frames that still wait.
Windows of different widths share a batch: the shorter ones are padded, and the backward RNN starts at each one's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from asr.model.latency import Latency
from asr.model.streaming import Emissions, StreamingModel, StreamState


@dataclass
class StepRequest:
    """New audio of one utterance, and what to compute from it."""

    state: StreamState
    mel: np.ndarray  # (n, bands) new mel frames
    latency: Latency
    last: bool = False  # the utterance ends with them
    preview: bool = True  # also emissions of the frames that cannot be committed yet

    @property
    def urgent(self) -> bool:
        """Whether the stream can show or decide something with the result; else it only moves the state on."""
        return self.preview or self.last


@dataclass
class StepResult:
    """Natural-log probabilities of every head, float32 arrays (frames, V)."""

    committed: list[Emissions] = field(default_factory=list)
    provisional: Emissions | None = None  # of frames right of the committed ones
    complete: bool = False  # whether `provisional` covers all the frames that wait


def run_steps(model: StreamingModel, requests: Sequence[StepRequest]) -> list[StepResult]:
    """Runs the requests of different streams together, and moves their states on.

    Each result is the one that its request gives alone.
    """
    model.push_all(
        [request.state for request in requests],
        [request.mel for request in requests],
        [request.last for request in requests],
    )
    results = [StepResult() for _ in requests]
    for latency in dict.fromkeys(request.latency for request in requests):
        rows = [row for row in zip(requests, results, strict=True) if row[0].latency == latency]
        while rows := [row for row in rows if _unfinished(*row)]:
            _run_batch(model, latency, _next_rows(rows))
    return results


def _unfinished(request: StepRequest, result: StepResult) -> bool:
    previewed = 0 if result.provisional is None else _length(result.provisional)
    result.complete = previewed == request.state.frames.shape[1]
    return _ready(request) or (request.preview and not result.complete)


def _next_rows(rows: list[tuple[StepRequest, StepResult]]) -> list[tuple[StepRequest, StepResult]]:
    """The rows of one latency that run next: all of them, or only those with a chunk.

    The latter where padding the previews' windows to the chunks' would cost more than a batch of their own.
    """
    ready = [row for row in rows if _ready(row[0])]
    previews = [request.state.frames.shape[1] for request, _ in rows if not _ready(request)]
    if not ready or not previews:
        return rows
    latency = rows[0][0].latency
    padding = len(previews) * (latency.chunk + latency.look_ahead) - sum(previews)
    return ready if padding > max(previews) else rows


def _ready(request: StepRequest) -> bool:
    return request.state.ready(request.latency.chunk, request.latency.look_ahead)


def _run_batch(model: StreamingModel, latency: Latency, rows: Sequence[tuple[StepRequest, StepResult]]) -> None:
    """One batch: the next chunk of the streams that have one, and all frames that wait of the others."""
    states = [request.state for request, _ in rows]
    commits, widths = [], []
    for request, _ in rows:
        waiting, ready = request.state.frames.shape[1], _ready(request)
        commits.append(min(latency.chunk, waiting) if ready else 0)
        widths.append(min(latency.chunk + latency.look_ahead, waiting) if ready else waiting)
    for (_, result), emissions, commit, width in zip(
        rows, model.run_all(states, commits, widths), commits, widths, strict=True
    ):
        if commit:
            result.committed.append({head: values[:commit] for head, values in emissions.items()})
        result.provisional = {head: values[commit:] for head, values in emissions.items()} if commit < width else None


def _length(emissions: Emissions) -> int:
    return len(next(iter(emissions.values())))
