"""LSTM layers in NumPy, for networks so small that nothing faster is worth loading.

They equal PyTorch's `nn.LSTM`, whose layout their weights have: gates in the order input, forget, cell, output. The
directions of a layer, one or two, run side by side in one loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LSTMLayer:
    """Weights of D directions: of the input (D, size, 4 H), of the state (D, H, 4 H), and biases (D, 1, 4 H).

    σ(x) = (1 + tanh(x/2))/2: the gates' weights are halved, so that one tanh serves all four.
    """

    input: np.ndarray
    state: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, directions: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> LSTMLayer:
        """From each direction's weights of the input (4 H, size) and of the state (4 H, H), and bias (4 H,)."""
        inputs, states, biases = (np.stack(parts) for parts in zip(*directions, strict=True))
        half = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), states.shape[2])
        return cls(
            np.ascontiguousarray((inputs * half[:, None]).transpose(0, 2, 1)),
            np.ascontiguousarray((states * half[:, None]).transpose(0, 2, 1)),
            (biases * half)[:, None],
        )

    @property
    def size(self) -> int:
        """H, hidden units of a direction."""
        return self.state.shape[1]

    def project(self, inputs: np.ndarray) -> np.ndarray:
        """(D, N, size) → (D, N, 4 H), what `step` takes of its inputs."""
        return inputs @ self.input + self.bias

    def step(self, projected: np.ndarray, hidden: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Projected inputs (D, N, 4 H), and hidden and cell states (D, N, H) → the next states."""
        gates = np.tanh(projected + hidden @ self.state)
        enter, keep, new, leave = (gates[..., at : at + self.size] for at in range(0, 4 * self.size, self.size))
        cell = 0.5 * ((1 + keep) * cell + (1 + enter) * new)
        return 0.5 * (1 + leave) * np.tanh(cell), cell


def bidirectional(layer: LSTMLayer, inputs: np.ndarray) -> np.ndarray:
    """Sequences of one length (N, T, size) → (N, T, 2 H)."""
    count, steps, size = inputs.shape
    both = np.stack([inputs, inputs[:, ::-1]])
    projected = layer.project(both.reshape(2, count * steps, size)).reshape(2, count, steps, -1)
    out = np.empty((2, count, steps, layer.size), np.float32)
    hidden = cell = np.zeros((2, count, layer.size), np.float32)
    for step in range(steps):
        hidden, cell = layer.step(projected[:, :, step], hidden, cell)
        out[:, :, step] = hidden
    return np.concatenate([out[0], out[1, :, ::-1]], axis=-1)
