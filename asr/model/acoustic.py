"""The acoustic model: mel frames to log-probabilities of tokens, with a latency that is chosen at run time.

    normalized mel frames → convolutional stem (time ÷ subsampling) → N latency-controlled bidirectional layers → heads

A latency-controlled layer (Zhang et al. 2016, arXiv 1510.08983) has two unidirectional RNNs. The forward one carries
its state from chunk to chunk. The backward one starts from zero at the end of the look-ahead and runs back over the
chunk, so it never needs the future beyond `look_ahead` frames. The loop over layers is *inside* the loop over chunks:
every layer sees the same window of `chunk + look_ahead` frames, and the look-ahead is paid once.

The same weights run in three ways, equal where they overlap:

- `forward`: full context, a batch of utterances.
- `forward_chunked`: latency-controlled, a batch of utterances, all chunks of a layer at once (training, evaluation).
- `advance`: latency-controlled, live, a window at a time; see `streaming`.

Everything here computes with tensors, for training and export; `torch_runtime` gives it NumPy arrays.

Shapes: B utterances, T mel frames, F frames (⌈T / subsampling⌉), H hidden units, V tokens of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.streaming import KERNEL, STRIDES, ModelConfig

Emissions = dict[str, Tensor]  # head → log-probabilities (…, F, V), natural logarithm
RNNState = tuple[Tensor, ...]  # (h,) or, for the LSTM, (h, c); each (layers, B, H)
CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}

Tap = Callable[[int, Tensor], None]  # is shown each layer's number and its output (B, F, H)


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
    """Two 3 × 3 convolutions over (time, band), then a linear layer; see `ModelConfig.context`."""

    def __init__(self, bands: int, channels: int, hidden: int, subsampling: int) -> None:
        super().__init__()
        first, second = STRIDES[subsampling]
        self.subsampling = subsampling
        self.conv1 = nn.Conv2d(1, channels, KERNEL, stride=(first, 2), padding=(0, 1))
        self.conv2 = nn.Conv2d(channels, channels, KERNEL, stride=(second, 2), padding=(0, 1))
        self.linear = nn.Linear(channels * -(-bands // 4), hidden)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, T + 2 context, bands), zeros or neighbors at the ends → (B, F, H)."""
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

    def step(
        self, x: Tensor, state: RNNState | None, commit: int, lengths: Tensor | None = None
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


class AcousticModel(nn.Module):
    """`heads` maps each token set's name to its number of tokens."""

    mel_mean: Tensor
    mel_std: Tensor

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

    def weights(self) -> dict[str, np.ndarray]:
        """In float32, as `checkpoint.save` takes them."""
        return {name: values.detach().float().cpu().numpy() for name, values in self.state_dict().items()}

    def encoder(self) -> Iterator[LatencyControlledLayer]:
        """The layers in order; `nn.ModuleList` forgets their type."""
        return cast("Iterator[LatencyControlledLayer]", iter(self.layers))

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths + self.config.subsampling - 1) // self.config.subsampling

    def embed(self, mel: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, T, bands) → the stem's (B, F, H); frames behind an utterance's length are the zeros the stem expects."""
        x = (mel - self.mel_mean) / self.mel_std
        if lengths is not None:
            x = x.masked_fill(torch.arange(mel.shape[1], device=mel.device)[:, None] >= lengths[:, None, None], 0.0)
        return self.stem(F.pad(x, (0, 0, self.config.context, self.config.context)))

    def emissions(self, x: Tensor) -> Emissions:
        """(B, F, H) → log-probabilities of every head."""
        x = self.norm(x)
        return {name: head(x).log_softmax(dim=-1) for name, head in self.heads.items()}

    def forward(
        self, mel: Tensor, lengths: Tensor | None = None, tap: Tap | None = None
    ) -> tuple[Emissions, Tensor | None]:
        """Full context, with shapes as `StreamingModel.forward`; `tap` is shown every layer's output."""
        x = self.embed(mel, lengths)
        frames = None if lengths is None else self.frame_lengths(lengths)
        for index, layer in enumerate(self.encoder()):
            x = layer(x, frames)
            if tap:
                tap(index, x)
        return self.emissions(x), frames

    def forward_chunked(
        self, mel: Tensor, lengths: Tensor | None, chunk: int, look_ahead: int, tap: Tap | None = None
    ) -> tuple[Emissions, Tensor | None]:
        """Latency-controlled; a chunk as long as the batch is full context."""
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

    def advance(
        self, window: Tensor, states: RNNState | None, commit: int, lengths: Tensor | None = None
    ) -> tuple[Emissions, RNNState]:
        """One window through all layers; see `StreamingModel.advance`."""
        after = []
        for index, layer in enumerate(self.encoder()):
            before = tuple(part[index : index + 1] for part in states) if states else None
            window, state = layer.step(window, before, commit, lengths)
            after.append(state)
        return self.emissions(window), tuple(torch.cat(parts) for parts in zip(*after, strict=True))
