"""Live computing that is the same whatever computes the network: PyTorch (`model`) or ONNX Runtime (`onnx_model`).

A stream's mel frames wait until the stem's context is there, the stem's frames until a chunk's look-ahead is; then the
window runs through all layers at once, alone or with those of other streams.

Shapes: B utterances, T mel frames, F frames (⌈T / subsampling⌉), H hidden units, V tokens of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.schema import check_range

# Parts of a tensor, each in memory of its own. (PyTorch's type stubs say that these return nothing.)
unbind_copy = cast("Callable[..., Sequence[Tensor]]", torch.unbind_copy)
split_copy = cast("Callable[..., Sequence[Tensor]]", torch.split_with_sizes_copy)

Emissions = dict[str, Tensor]  # head → log-probabilities (…, F, V), natural logarithm
RNNState = tuple[Tensor, ...]  # (h,) or, for the LSTM, (h, c); each (layers, B, H)
STRIDES = {4: (2, 2), 3: (1, 3)}  # in time of the stem's two convolutions, for each subsampling
KERNEL = 3  # of both


@dataclass(frozen=True)
class ModelConfig:
    cell: str = "lstm"  # rnn | gru | lstm
    hidden: int = 320
    layers: int = 4
    stem_channels: int = 32
    subsampling: int = 4  # mel frames a frame

    def __post_init__(self) -> None:
        check_range(self, 1, 8192, "hidden")
        check_range(self, 1, 64, "layers")
        check_range(self, 1, 1024, "stem_channels")

    @property
    def context(self) -> int:
        """Mel frames that the stem sees left and right of a frame's center."""
        return (KERNEL - 1) * (1 + STRIDES[self.subsampling][0]) // 2


@dataclass
class StreamState:
    """What one live utterance has left to do: mel frames that wait for their right context, frames that wait to be
    committed, and the forward RNNs' states at the last commitment. Its size is bounded by the window."""

    mel: Tensor  # (waiting mel frames, bands), normalized, context included
    frames: Tensor  # (1, waiting frames, H)
    rnn: RNNState
    committed: int = 0  # frames given out so far
    ended: bool = False

    def ready(self, chunk: int, look_ahead: int) -> bool:
        """Whether the next chunk can be committed."""
        waiting = self.frames.shape[1]
        return waiting >= chunk + look_ahead or (self.ended and waiting > 0)


class StemPass(Protocol):
    """Normalized mel frames (B, T + 2 context, bands) → (B, F, H), however it is computed."""

    context: int

    def __call__(self, mel: Tensor) -> Tensor: ...


class StreamingModel(ABC):
    """What is the same whatever computes the stem and the layers; see the top of this module for the three ways."""

    config: ModelConfig
    stem: StemPass
    useful_batch = 4  # whole utterances in a batch; more would make it longer but not cheaper
    mel_mean: Tensor
    mel_std: Tensor

    @abstractmethod
    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> tuple[Emissions, Tensor | None]:
        """Full context. `mel` (B, T, bands), T ≥ 1; `lengths` (B,) in mel frames, None where all are T long.

        Returns emissions (B, F, V) of every head, and their lengths in frames.
        """

    @abstractmethod
    def forward_chunked(
        self, mel: Tensor, lengths: Tensor | None, chunk: int, look_ahead: int
    ) -> tuple[Emissions, Tensor | None]:
        """Latency-controlled, with shapes as `forward`. A chunk as long as the batch is full context."""

    @abstractmethod
    def advance(
        self, window: Tensor, states: RNNState | None, commit: int, lengths: Tensor | None = None
    ) -> tuple[Emissions, RNNState]:
        """Run a window (B, commit + look-ahead, H) of stem frames through all layers from the given states.

        `lengths` (B,) are the real frames of each window, None where all are. Returns emissions (B, commit +
        look-ahead, V), exact for the committed frames and provisional for the others, and the states after the
        committed frames.
        """

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths + self.config.subsampling - 1) // self.config.subsampling

    def normalize(self, mel: Tensor) -> Tensor:
        return (mel - self.mel_mean) / self.mel_std

    def embed(self, mel: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, T, bands) → the stem's (B, F, H); frames behind an utterance's length are the zeros the stem expects."""
        x = self.normalize(mel)
        if lengths is not None:
            x = x.masked_fill(torch.arange(mel.shape[1], device=mel.device)[:, None] >= lengths[:, None, None], 0.0)
        context = self.stem.context
        return self.stem(F.pad(x, (0, 0, context, context)))

    def stream_state(self) -> StreamState:
        """The state before an utterance's first mel frame."""
        like, config = self.mel_mean, self.config
        parts = 2 if config.cell == "lstm" else 1
        zeros = tuple(like.new_zeros(config.layers, 1, config.hidden) for _ in range(parts))
        return StreamState(like.new_zeros(self.stem.context, len(like)), like.new_zeros(1, 0, config.hidden), zeros)

    def missing(self, state: StreamState, frames: int) -> int:
        """Mel frames that are to be pushed until so many stem frames wait to be committed."""
        new = frames - state.frames.shape[1]
        if new <= 0:
            return 0
        return max(0, (new - 1) * self.config.subsampling + 2 * self.stem.context + 1 - len(state.mel))

    def push(self, state: StreamState, mel: Tensor, last: bool = False) -> None:
        """Hand over new mel frames (n, bands); `last` says that the utterance ends with them."""
        self.push_all([state], [mel], [last])

    def push_all(self, states: Sequence[StreamState], mels: Sequence[Tensor], lasts: Sequence[bool]) -> None:
        """`push` for several streams; those with equally many waiting and new frames go through the stem together."""
        subsampling, context = self.config.subsampling, self.stem.context
        groups: dict[tuple[int, int, bool], list[int]] = {}
        for i, (state, mel, last) in enumerate(zip(states, mels, lasts, strict=True)):
            groups.setdefault((len(state.mel), len(mel), last), []).append(i)
        for (_, _, last), members in groups.items():
            group = [states[i] for i in members]
            new = self.normalize(torch.stack([mels[i] for i in members]).to(self.mel_mean.device))
            x = torch.cat([torch.stack([state.mel for state in group]), new], dim=1)
            if last:
                x = F.pad(x, (0, 0, 0, context))
            count = max(0, (x.shape[1] - 2 * context - 1) // subsampling + 1)
            for state, rest in zip(group, unbind_copy(x[:, count * subsampling :]), strict=True):
                state.mel = rest
                state.ended |= last
            if count:
                frames = self.stem(x[:, : (count - 1) * subsampling + 2 * context + 1])
                for state, each in zip(group, frames.split(1), strict=True):
                    state.frames = torch.cat([state.frames, each], dim=1)

    def step(self, state: StreamState, chunk: int, look_ahead: int) -> tuple[Emissions, Emissions] | None:
        """Commit the next chunk, or return None where its look-ahead has not been heard yet.

        Returns emissions (chunk, V), and the provisional ones (look-ahead, V) that came with them.
        After the last mel frame chunk and look-ahead are cut at the utterance's end; call until None.
        """
        if not state.ready(chunk, look_ahead):
            return None
        waiting = state.frames.shape[1]
        commit = min(chunk, waiting)
        (emissions,) = self.run_all([state], [commit], [min(chunk + look_ahead, waiting)])
        return (
            {name: values[:commit] for name, values in emissions.items()},
            {name: values[commit:] for name, values in emissions.items()},
        )

    def preview(self, state: StreamState) -> Emissions:
        """Provisional emissions (waiting frames, V) of at least one waiting frame, as if the utterance ended here; the
        state stays as it is."""
        return self.run_all([state], [0], [state.frames.shape[1]])[0]

    def run_all(self, states: Sequence[StreamState], commits: Sequence[int], widths: Sequence[int]) -> list[Emissions]:
        """The first `width` waiting frames of several streams as one batch, `commit` of them for good (0: a preview).

        All streams that commit do so for equally many frames, but where an utterance ends. Returns emissions
        (width, V) of each, in memory of their own. There are few calls for each stream: at every call that computes,
        PyTorch lets other threads run Python, and waits for them afterwards.
        """
        width = max(widths)
        boundary = max(commits) or width
        lengths = None if min(widths) == width else torch.tensor(widths, device=self.mel_mean.device)
        if all(state.frames.shape[1] == width for state in states):
            windows = torch.cat([state.frames for state in states])
        else:
            windows = nn.utils.rnn.pad_sequence(
                [state.frames[0, :n] for state, n in zip(states, widths, strict=True)], batch_first=True
            )
        before = tuple(torch.cat(parts, dim=1) for parts in zip(*(state.rnn for state in states), strict=True))
        emissions, after = self.advance(windows, before, boundary, lengths)
        if any(commits):
            each = zip(*(split_copy(part, [1] * len(states), dim=1) for part in after), strict=True)
            for state, commit, rnn in zip(states, commits, each, strict=True):
                if commit:
                    state.rnn = rnn
                    state.frames = state.frames[:, commit:].clone()
                    state.committed += commit
        if lengths is None:
            rows = [unbind_copy(values) for values in emissions.values()]
        else:
            real = torch.arange(width, device=lengths.device) < lengths[:, None]
            rows = [split_copy(values[real], list(widths)) for values in emissions.values()]
        return [dict(zip(emissions, values, strict=True)) for values in zip(*rows, strict=True)]
