"""The acoustic model in ONNX Runtime, on the CPU.

A run computes on the thread that calls it and on no other: whoever has several cores runs several batches or streams at
once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from asr.model.checkpoint import Checkpoint
from asr.model.graphs import encoder_session, stem_session
from asr.model.streaming import Emissions, RNNState, StreamingModel


class OnnxModel(StreamingModel):
    """The same model as `acoustic`'s, with the same three ways of running; equal to it to 1e-3.

    With `int8` the RNNs' and linear layers' weights and inputs have 8 bits, with fixed scales, so that the three ways
    still equal each other; texts are about as accurate. Raises CheckpointError for 8-bit GRUs and basic cells.
    """

    def __init__(self, checkpoint: Checkpoint, int8: bool = False) -> None:
        self.config = checkpoint.config.model
        self.mel_mean, self.mel_std = torch.from_numpy(checkpoint.mel_mean), torch.from_numpy(checkpoint.mel_std)
        self.heads = list(checkpoint.config.tokens)
        self.states = ("h", "c") if self.config.cell == "lstm" else ("h",)
        self.stem = OnnxStem(checkpoint)
        self.session = encoder_session(checkpoint, int8)
        if int8:
            self.useful_batch = 1  # measured: a row of four costs what it costs alone

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> tuple[Emissions, Tensor | None]:
        frames = self.embed(mel, lengths)
        real = None if lengths is None else self.frame_lengths(lengths)
        emissions, _ = self.advance(frames, None, frames.shape[1], real)
        return emissions, real

    def forward_chunked(
        self, mel: Tensor, lengths: Tensor | None, chunk: int, look_ahead: int
    ) -> tuple[Emissions, Tensor | None]:
        frames = self.embed(mel, lengths)
        total = frames.shape[1]
        real = None if lengths is None else self.frame_lengths(lengths)
        states: RNNState | None = None
        parts = []
        for start in range(0, total, chunk):
            window = frames[:, start : start + chunk + look_ahead]
            commit = min(chunk, total - start)
            emissions, states = self.advance(window, states, commit, None if real is None else real - start)
            parts.append({name: values[:, :commit] for name, values in emissions.items()})
        return {name: torch.cat([part[name] for part in parts], dim=1) for name in self.heads}, real

    def advance(
        self, window: Tensor, states: RNNState | None, commit: int, lengths: Tensor | None = None
    ) -> tuple[Emissions, RNNState]:
        batch, width, _ = window.shape
        shape = (self.config.layers, batch, self.config.hidden)
        # A window of no real frame is run as if it had one: nobody looks at what comes out.
        real = np.full(batch, width) if lengths is None else lengths.clamp(1, width).numpy()
        inputs = {
            "frames": window.numpy(),
            "lengths": real.astype(np.int32),
            "commit": np.array([commit], dtype=np.int64),
        }
        for i, name in enumerate(self.states):
            inputs[name] = states[i].numpy() if states else np.zeros(shape, dtype=np.float32)
        arrays = self.session.run(self.heads + [f"{name}_after" for name in self.states], inputs)
        tensors = [torch.from_numpy(array) for array in arrays]
        return dict(zip(self.heads, tensors, strict=False)), tuple(tensors[len(self.heads) :])


class OnnxStem:
    def __init__(self, checkpoint: Checkpoint) -> None:
        self.context = checkpoint.config.model.context
        self.session = stem_session(checkpoint)

    def __call__(self, mel: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(["frames"], {"mel": mel.numpy()})[0])
