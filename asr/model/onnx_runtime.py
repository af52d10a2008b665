"""The acoustic model in ONNX Runtime, on the CPU: the graphs of `export`, built from a checkpoint's weights at load.

They are made in memory, in a fraction of a second, so that no exported file can be older than its checkpoint. A run
computes on the thread that calls it and on no other: whoever has several cores runs several batches or streams at once.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor

from asr.model import export
from asr.model.acoustic import AcousticModel
from asr.model.streaming import Emissions, RNNState, StreamingModel

onnxruntime.disable_telemetry_events()  # its Windows builds report events otherwise


class OnnxModel(StreamingModel):
    """The same model as `model`, with the same three ways of running; equal to it to 1e-3.

    With `int8` the RNNs' and linear layers' weights and inputs have 8 bits, with fixed scales, so that the three ways
    still equal each other; texts are about as accurate. Raises CheckpointError for 8-bit GRUs and basic cells.
    """

    def __init__(self, model: AcousticModel, int8: bool = False) -> None:
        self.config = model.config
        self.mel_mean, self.mel_std = model.mel_mean, model.mel_std
        self.heads = list(model.heads)
        self.states = ("h", "c") if self.config.cell == "lstm" else ("h",)
        self.stem = OnnxStem(model)
        self.session = session(export.encoder(model, int8))
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
    def __init__(self, model: AcousticModel) -> None:
        self.context = model.stem.context
        self.session = session(export.stem(model))

    def __call__(self, mel: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(["frames"], {"mel": mel.numpy()})[0])


def session(graph: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # would remember a plan for every shape that ever came
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
