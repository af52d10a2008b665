"""The acoustic model: mel frames to log-probabilities of tokens, with a latency that is chosen at run time.

    normalised mel frames → convolutional stem (time ÷ subsampling) → N latency-controlled bidirectional layers → heads

A latency-controlled layer (Zhang et al. 2016, arXiv 1510.08983) has two unidirectional RNNs. The forward one carries
its state from chunk to chunk. The backward one starts from zero at the end of the look-ahead and runs back over the
chunk, so it never needs the future beyond `look_ahead` frames. The loop over layers is *inside* the loop over chunks:
every layer sees the same window of `chunk + look_ahead` frames, and the look-ahead is paid once.

The same weights run in three ways, equal where they overlap:

- `forward`: full context, a batch of utterances.
- `forward_chunked`: latency-controlled, a batch of utterances, all chunks of a layer at once (training, evaluation).
- `push` + `step`: latency-controlled, live, from a `StreamState`.

Shapes: B utterances, T mel frames, F frames (⌈T / subsampling⌉), H hidden units, V tokens of a head.
"""
from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.errors import CheckpointError

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
STRIDES = {4: (2, 2), 3: (1, 3)}  # of the two convolutions, for each subsampling
KERNEL = 3

# Parts of a tensor, each in memory of its own. (PyTorch's type stubs say that these return nothing.)
unbind_copy = cast("Callable[..., Sequence[Tensor]]", torch.unbind_copy)
split_copy = cast("Callable[..., Sequence[Tensor]]", torch.split_with_sizes_copy)

Emissions = dict[str, Tensor]  # head → log-probabilities (…, F, V), natural logarithm
RNNState = tuple[Tensor, ...]  # (h,) or, for the LSTM, (h, c); each (layers, B, H)
Tap = Callable[[int, Tensor], None]  # is shown each layer's number and its output (B, F, H)


@dataclass(frozen=True)
class ModelConfig:
    cell: str = "lstm"  # rnn | gru | lstm
    hidden: int = 320
    layers: int = 4
    stem_channels: int = 32
    subsampling: int = 4  # mel frames a frame

    def __post_init__(self) -> None:
        for name, most in (("hidden", 8192), ("layers", 64), ("stem_channels", 1024)):
            if not 0 < getattr(self, name) <= most:
                raise ValueError(f"{name} must lie between 1 and {most}")


def run_rnn(rnn: nn.RNNBase, x: Tensor, state: RNNState | None = None) -> tuple[Tensor, RNNState]:
    """One call shape for all cells: (B, F, H) and a state (None: zeros) → outputs and the state after the last."""
    if rnn.mode == "LSTM":
        return rnn(x, state)
    out, last = rnn(x, None if state is None else state[0])
    return out, (last,)


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence of (B, F, H) back to front within its own length, so that padding stays behind it."""
    if lengths is None:
        return x.flip(1)
    position = torch.arange(x.shape[1], device=x.device)
    source = lengths[:, None] - 1 - position
    source = torch.where(source >= 0, source, position)
    return x.gather(1, source[:, :, None].expand_as(x))


class Stem(nn.Module):
    """Two 3 × 3 convolutions over (time, band), then a linear layer. Sees `context` frames on either side."""

    def __init__(self, bands: int, channels: int, hidden: int, subsampling: int) -> None:
        super().__init__()
        first, second = STRIDES[subsampling]
        self.subsampling = subsampling
        self.conv1 = nn.Conv2d(1, channels, KERNEL, stride=(first, 2), padding=(0, 1))
        self.conv2 = nn.Conv2d(channels, channels, KERNEL, stride=(second, 2), padding=(0, 1))
        self.linear = nn.Linear(channels * -(-bands // 4), hidden)
        self.context = (KERNEL - 1) * (1 + first) // 2  # mel frames left and right of a frame's centre

    def forward(self, mel: Tensor) -> Tensor:
        """(B, T + 2 context, bands), zeros or neighbours at the ends → (B, F, H)."""
        x = F.relu(self.conv1(mel[:, None]), inplace=True)
        x = F.relu(self.conv2(x), inplace=True)
        return self.linear(x.transpose(1, 2).flatten(2))


class LatencyControlledLayer(nn.Module):
    """`x + proj([forward RNN, backward RNN](LayerNorm(x)))`."""

    def __init__(self, cell: str, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.forward_rnn = CELLS[cell](hidden, hidden, batch_first=True)
        self.backward_rnn = CELLS[cell](hidden, hidden, batch_first=True)
        self.proj = nn.Linear(2 * hidden, hidden)
        self.dropout = nn.Dropout(0.0)  # training sets its rate

    def merge(self, x: Tensor, forward: Tensor, normed: Tensor, lengths: Tensor | None) -> Tensor:
        backward = reverse(run_rnn(self.backward_rnn, reverse(normed, lengths))[0], lengths)
        return x + self.dropout(self.proj(torch.cat([forward, backward], dim=-1)))

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Full context: (B, F, H) → (B, F, H)."""
        normed = self.norm(x)
        return self.merge(x, run_rnn(self.forward_rnn, normed)[0], normed, lengths)

    def step(self, x: Tensor, state: RNNState | None, commit: int, lengths: Tensor | None = None
             ) -> tuple[Tensor, RNNState]:
        """One window: (B, commit + look-ahead, H), of it `lengths` real frames; the state after `commit` frames."""
        normed = self.norm(x)
        forward, state = run_rnn(self.forward_rnn, normed[:, :commit], state)
        if x.shape[1] > commit:
            ahead, _ = run_rnn(self.forward_rnn, normed[:, commit:], state)
            forward = torch.cat([forward, ahead], dim=1)
        return self.merge(x, forward, normed, lengths), state

    def windows(self, x: Tensor, valid: Tensor, chunk: int) -> Tensor:
        """All windows at once: (B, K, chunk + look-ahead, H), `valid` (B, K) real frames in each."""
        batch, count, width, _ = x.shape
        normed = self.norm(x)
        state: RNNState | None = None
        committed, boundaries = [], []
        for k in range(count):
            out, state = run_rnn(self.forward_rnn, normed[:, k, :chunk], state)
            committed.append(out)
            boundaries.append(state)
        forward = torch.stack(committed, dim=1).flatten(0, 1)
        if width > chunk:
            starts = tuple(torch.stack(parts, dim=2).flatten(1, 2) for parts in zip(*boundaries, strict=True))
            ahead, _ = run_rnn(self.forward_rnn, normed[:, :, chunk:].flatten(0, 1), starts)
            forward = torch.cat([forward, ahead], dim=1)
        merged = self.merge(x.flatten(0, 1), forward, normed.flatten(0, 1), valid.flatten())
        return merged.unflatten(0, (batch, count))


@dataclass
class StreamState:
    """What one live utterance has left to do: mel frames that wait for their right context, frames that wait to be
    committed, and the forward RNNs' states at the last commitment. Its size is bounded by the window."""

    mel: Tensor  # (waiting mel frames, bands), normalised, context included
    frames: Tensor  # (1, waiting frames, H)
    rnn: RNNState
    committed: int = 0  # frames given out so far
    ended: bool = False

    def ready(self, chunk: int, look_ahead: int) -> bool:
        """Whether the next chunk can be committed."""
        waiting = self.frames.shape[1]
        return waiting >= chunk + look_ahead or (self.ended and waiting > 0)


class StemPass(Protocol):
    """Normalised mel frames (B, T + 2 context, bands) → (B, F, H), however it is computed."""

    context: int

    def __call__(self, mel: Tensor) -> Tensor: ...


class StreamingModel(ABC):
    """What is the same whatever computes the stem and the layers; see the top of this module for the three ways."""

    config: ModelConfig
    stem: StemPass
    mel_mean: Tensor
    mel_std: Tensor

    @abstractmethod
    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> tuple[Emissions, Tensor | None]:
        """Full context. `mel` (B, T, bands), T ≥ 1; `lengths` (B,) in mel frames, None where all are T long.

        Returns emissions (B, F, V) of every head, and their lengths in frames.
        """

    @abstractmethod
    def forward_chunked(self, mel: Tensor, lengths: Tensor | None, chunk: int, look_ahead: int
                        ) -> tuple[Emissions, Tensor | None]:
        """Latency-controlled, with shapes as `forward`. A chunk as long as the batch is full context."""

    @abstractmethod
    def advance(self, window: Tensor, states: RNNState | None, commit: int, lengths: Tensor | None = None
                ) -> tuple[Emissions, RNNState]:
        """Run a window (B, commit + look-ahead, H) of stem frames through all layers from the given states.

        `lengths` (B,) are the real frames of each window, None where all are. Returns emissions (B, commit +
        look-ahead, V), exact for the committed frames and provisional for the others, and the states after the
        committed frames.
        """

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths + self.config.subsampling - 1) // self.config.subsampling

    def normalise(self, mel: Tensor) -> Tensor:
        return (mel - self.mel_mean) / self.mel_std

    def embed(self, mel: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, T, bands) → the stem's (B, F, H); frames behind an utterance's length are the zeros the stem expects."""
        x = self.normalise(mel)
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
            new = self.normalise(torch.stack([mels[i] for i in members]).to(self.mel_mean.device))
            x = torch.cat([torch.stack([state.mel for state in group]), new], dim=1)
            if last:
                x = F.pad(x, (0, 0, 0, context))
            count = max(0, (x.shape[1] - 2 * context - 1) // subsampling + 1)
            for state, rest in zip(group, unbind_copy(x[:, count * subsampling:]), strict=True):
                state.mel = rest
                state.ended |= last
            if count:
                frames = self.stem(x[:, :(count - 1) * subsampling + 2 * context + 1])
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
        emissions, = self.run_all([state], [commit], [min(chunk + look_ahead, waiting)])
        return ({name: values[:commit] for name, values in emissions.items()},
                {name: values[commit:] for name, values in emissions.items()})

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
            windows = nn.utils.rnn.pad_sequence([state.frames[0, :n] for state, n in zip(states, widths, strict=True)],
                                                batch_first=True)
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


class AcousticModel(nn.Module, StreamingModel):
    """`heads` maps each token set's name to its number of tokens."""

    stem: Stem

    def __init__(self, config: ModelConfig, bands: int, heads: Mapping[str, int]) -> None:
        super().__init__()
        if config.cell not in CELLS:
            raise ValueError(f"unknown cell '{config.cell}': choose one of {', '.join(CELLS)}")
        if config.subsampling not in STRIDES:
            raise ValueError(f"subsampling {config.subsampling} is not available: choose one of {list(STRIDES)}")
        self.config = config
        self.stem = Stem(bands, config.stem_channels, config.hidden, config.subsampling)
        self.layers = nn.ModuleList(LatencyControlledLayer(config.cell, config.hidden) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden)
        self.heads = nn.ModuleDict({name: nn.Linear(config.hidden, tokens) for name, tokens in heads.items()})
        self.register_buffer("mel_mean", torch.zeros(bands))
        self.register_buffer("mel_std", torch.ones(bands))

    def encoder(self) -> Iterator[LatencyControlledLayer]:
        """The layers in order; `nn.ModuleList` forgets their type."""
        return cast("Iterator[LatencyControlledLayer]", iter(self.layers))

    def emissions(self, x: Tensor) -> Emissions:
        """(B, F, H) → log-probabilities of every head."""
        x = self.norm(x)
        return {name: head(x).log_softmax(dim=-1) for name, head in self.heads.items()}

    def forward(self, mel: Tensor, lengths: Tensor | None = None, tap: Tap | None = None
                ) -> tuple[Emissions, Tensor | None]:
        """As the base says; `tap` is shown every layer's output, here and in `forward_chunked`."""
        x = self.embed(mel, lengths)
        frames = None if lengths is None else self.frame_lengths(lengths)
        for index, layer in enumerate(self.encoder()):
            x = layer(x, frames)
            if tap:
                tap(index, x)
        return self.emissions(x), frames

    def forward_chunked(self, mel: Tensor, lengths: Tensor | None, chunk: int, look_ahead: int, tap: Tap | None = None
                        ) -> tuple[Emissions, Tensor | None]:
        x = self.embed(mel, lengths)
        total = x.shape[1]
        chunk = min(chunk, total)
        frames = None if lengths is None else self.frame_lengths(lengths)
        count = -(-total // chunk)
        starts = chunk * torch.arange(count, device=x.device)
        ends = frames if frames is not None else torch.full((x.shape[0],), total, device=x.device)
        valid = (ends[:, None] - starts).clamp(min=0, max=chunk + look_ahead)
        padded = F.pad(x, (0, 0, 0, count * chunk + look_ahead - total))
        windows = padded.unfold(1, chunk + look_ahead, chunk).transpose(2, 3)  # (B, K, chunk + look-ahead, H)
        x = windows
        for index, layer in enumerate(self.encoder()):
            windows = layer.windows(windows, valid, chunk)
            x = windows[:, :, :chunk].flatten(1, 2)[:, :total]
            if tap:
                tap(index, x)
        return self.emissions(x), frames

    def advance(self, window: Tensor, states: RNNState | None, commit: int, lengths: Tensor | None = None
                ) -> tuple[Emissions, RNNState]:
        after = []
        for index, layer in enumerate(self.encoder()):
            before = tuple(part[index:index + 1] for part in states) if states else None
            window, state = layer.step(window, before, commit, lengths)
            after.append(state)
        return self.emissions(window), tuple(torch.cat(parts) for parts in zip(*after, strict=True))


def quantise(model: AcousticModel) -> None:
    """Turn the RNNs' weights to 8-bit integers in place; activations are quantised as they come (CPU only).

    About twice as fast live. The scale of the activations depends on the window they come in, so streamed and batched
    emissions are no longer equal to 1e-4; texts are as accurate. Raises CheckpointError for basic RNN cells.
    """
    if model.config.cell not in ("lstm", "gru"):
        raise CheckpointError(f"Cells of kind '{model.config.cell}' cannot run with 8-bit weights: leave out --int8.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces a successor package that has no recurrent layers yet
        torch.ao.quantization.quantize_dynamic(model, {nn.LSTM, nn.GRU}, dtype=torch.qint8, inplace=True)
