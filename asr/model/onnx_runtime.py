"""The acoustic model in ONNX Runtime, on the CPU.

A run computes on the thread that calls it and on no other: whoever has several cores runs several batches or streams at
once.
"""

from __future__ import annotations

import numpy as np

from asr.model.checkpoint import Checkpoint
from asr.model.graphs import encoder_session, stem_session
from asr.model.streaming import Emissions, RNNState, StreamingModel

STEM_FRAMES = 1000  # mel frames that go through the stem at a time, if the utterances are no longer


class OnnxModel(StreamingModel):
    """The same model as `acoustic`'s, with the same three ways of running; equal to it to 1e-3.

    With `int8` the RNNs' and linear layers' weights and inputs have 8 bits, with fixed scales, so that the three ways
    still equal each other; texts are about as accurate. Raises CheckpointError for 8-bit GRUs and basic cells.
    """

    def __init__(self, checkpoint: Checkpoint, int8: bool = False) -> None:
        super().__init__(checkpoint.config.model, checkpoint.mel_mean, checkpoint.mel_std)
        self.heads = list(checkpoint.config.tokens)
        self.states = ("h", "c") if self.config.cell == "lstm" else ("h",)
        self.outputs = [*self.heads, *(f"{name}_after" for name in self.states)]
        self.stem_session, self.session = stem_session(checkpoint), encoder_session(checkpoint, int8)
        if int8:
            self.useful_batch = 1  # measured: a row of four costs what it costs alone

    def stem(self, mel: np.ndarray) -> np.ndarray:
        rows = max(1, STEM_FRAMES // mel.shape[1])  # of long utterances one by one: all at once would be no faster
        parts = [mel[first : first + rows] for first in range(0, len(mel), rows)]
        return np.concatenate([self.stem_session.run(["frames"], {"mel": part})[0] for part in parts])

    def advance(
        self, window: np.ndarray, states: RNNState | None, commit: int, lengths: np.ndarray | None = None
    ) -> tuple[Emissions, RNNState]:
        batch, width, hidden = window.shape
        if states is None:
            states = (np.zeros((self.config.layers, batch, hidden), np.float32),) * len(self.states)
        # A window of no real frame is run as if it had one: nobody looks at what comes out.
        real = np.full(batch, width) if lengths is None else lengths.clip(1, width)
        inputs = {"frames": window, "lengths": real.astype(np.int32), "commit": np.array([commit], np.int64)}
        found = self.session.run(self.outputs, inputs | dict(zip(self.states, states, strict=True)))
        return dict(zip(self.heads, found, strict=False)), tuple(found[len(self.heads) :])
