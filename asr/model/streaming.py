"""Live computing that is the same whatever computes the network: ONNX Runtime (`onnx_runtime`) or PyTorch
(`torch_runtime`). All arrays are NumPy's, float32.

A stream's mel frames wait until the stem's context is there, the stem's frames until a chunk's look-ahead is; then the
window runs through all layers at once, alone or with those of other streams.

Shapes: B utterances, T mel frames, F frames (⌈T / subsampling⌉), H hidden units, V tokens of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.schema import check_range

Emissions = dict[str, np.ndarray]  # head → log-probabilities (…, F, V), natural logarithm
RNNState = tuple[np.ndarray, ...]  # (h,) or, for the LSTM, (h, c); each (layers, B, H)
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

    mel: np.ndarray  # (waiting mel frames, bands), normalized, context included
    frames: np.ndarray  # (1, waiting frames, H)
    rnn: RNNState
    committed: int = 0  # frames given out so far
    ended: bool = False

    def ready(self, chunk: int, look_ahead: int) -> bool:
        """Whether the next chunk can be committed."""
        waiting = self.frames.shape[1]
        return waiting >= chunk + look_ahead or (self.ended and waiting > 0)


class StreamingModel(ABC):
    """What is the same whatever computes the stem and the layers; see `acoustic` for the three ways of running."""

    useful_batch = 4  # whole utterances in a batch; more would make it longer but not cheaper

    def __init__(self, config: ModelConfig, mel_mean: np.ndarray, mel_std: np.ndarray) -> None:
        self.config, self.mel_mean, self.mel_std = config, mel_mean, mel_std

    @abstractmethod
    def stem(self, mel: np.ndarray) -> np.ndarray:
        """Normalized mel frames (B, T + 2 context, bands), zeros or neighbors at the ends → (B, F, H)."""

    @abstractmethod
    def advance(
        self, window: np.ndarray, states: RNNState | None, commit: int, lengths: np.ndarray | None = None
    ) -> tuple[Emissions, RNNState]:
        """Run a window (B, commit + look-ahead, H) of stem frames through all layers from the given states.

        `lengths` (B,) are the real frames of each window, None where all are. Returns emissions (B, commit +
        look-ahead, V), exact for the committed frames and provisional for the others, and the states after the
        committed frames.
        """

    def forward(self, mel: np.ndarray, lengths: np.ndarray | None = None) -> tuple[Emissions, np.ndarray | None]:
        """Full context. `mel` (B, T, bands), T ≥ 1; `lengths` (B,) in mel frames, None where all are T long.

        Returns emissions (B, F, V) of every head, and their lengths in frames.
        """
        frames = self.embed(mel, lengths)
        real = None if lengths is None else self.frame_lengths(lengths)
        emissions, _ = self.advance(frames, None, frames.shape[1], real)
        return emissions, real

    def forward_chunked(
        self, mel: np.ndarray, lengths: np.ndarray | None, chunk: int, look_ahead: int
    ) -> tuple[Emissions, np.ndarray | None]:
        """Latency-controlled, with shapes as `forward`. A chunk as long as the batch is full context."""
        frames = self.embed(mel, lengths)
        total = frames.shape[1]
        real = None if lengths is None else self.frame_lengths(lengths)
        states: RNNState | None = None
        parts = []
        for start in range(0, total, chunk):
            commit = min(chunk, total - start)
            emissions, states = self.advance(
                frames[:, start : start + chunk + look_ahead], states, commit, None if real is None else real - start
            )
            parts.append({name: values[:, :commit] for name, values in emissions.items()})
        return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}, real

    def frame_lengths(self, lengths: np.ndarray) -> np.ndarray:
        return (lengths + self.config.subsampling - 1) // self.config.subsampling

    def normalize(self, mel: np.ndarray) -> np.ndarray:
        return (mel - self.mel_mean) / self.mel_std

    def embed(self, mel: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """(B, T, bands) → the stem's (B, F, H); frames behind an utterance's length are the zeros the stem expects."""
        batch, total, bands = mel.shape
        context = self.config.context
        padded = np.zeros((batch, total + 2 * context, bands), np.float32)
        for row, each, length in zip(padded, mel, [total] * batch if lengths is None else lengths, strict=True):
            row[context : context + length] = self.normalize(each[:length])
        return self.stem(padded)

    def stream_state(self) -> StreamState:
        """The state before an utterance's first mel frame."""
        config = self.config
        parts = 2 if config.cell == "lstm" else 1
        return StreamState(
            np.zeros((config.context, len(self.mel_mean)), np.float32),
            np.zeros((1, 0, config.hidden), np.float32),
            tuple(np.zeros((config.layers, 1, config.hidden), np.float32) for _ in range(parts)),
        )

    def missing(self, state: StreamState, frames: int) -> int:
        """Mel frames that are to be pushed until so many stem frames wait to be committed."""
        new = frames - state.frames.shape[1]
        if new <= 0:
            return 0
        return max(0, (new - 1) * self.config.subsampling + 2 * self.config.context + 1 - len(state.mel))

    def push(self, state: StreamState, mel: np.ndarray, last: bool = False) -> None:
        """Hand over new mel frames (n, bands); `last` says that the utterance ends with them."""
        self.push_all([state], [mel], [last])

    def push_all(self, states: Sequence[StreamState], mels: Sequence[np.ndarray], lasts: Sequence[bool]) -> None:
        """`push` for several streams; those with equally many waiting and new frames go through the stem together."""
        subsampling, context = self.config.subsampling, self.config.context
        groups: dict[tuple[int, int, bool], list[int]] = {}
        for i, (state, mel, last) in enumerate(zip(states, mels, lasts, strict=True)):
            groups.setdefault((len(state.mel), len(mel), last), []).append(i)
        for (waiting, new, last), members in groups.items():
            total = waiting + new
            x = np.zeros((len(members), total + context * last, len(self.mel_mean)), np.float32)
            for row, i in zip(x, members, strict=True):
                row[:waiting] = states[i].mel
                row[waiting:total] = self.normalize(mels[i])
            count = max(0, (x.shape[1] - 2 * context - 1) // subsampling + 1)
            frames = self.stem(x[:, : (count - 1) * subsampling + 2 * context + 1]) if count else None
            for place, i in enumerate(members):
                state = states[i]
                state.mel = x[place, count * subsampling :].copy()
                state.ended |= last
                if frames is not None:
                    state.frames = np.concatenate([state.frames, frames[place : place + 1]], axis=1)

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
        (width, V) of each, in memory of their own.
        """
        width = max(widths)
        windows = np.zeros((len(states), width, self.config.hidden), np.float32)
        for row, state, real in zip(windows, states, widths, strict=True):
            row[:real] = state.frames[0, :real]
        before = tuple(np.concatenate(parts, axis=1) for parts in zip(*(state.rnn for state in states), strict=True))
        lengths = None if min(widths) == width else np.array(widths)
        emissions, after = self.advance(windows, before, max(commits) or width, lengths)
        for i, (state, commit) in enumerate(zip(states, commits, strict=True)):
            if commit:
                state.rnn = tuple(part[:, i : i + 1].copy() for part in after)
                state.frames = state.frames[:, commit:].copy()
                state.committed += commit
        return [{name: values[i, :real].copy() for name, values in emissions.items()} for i, real in enumerate(widths)]
