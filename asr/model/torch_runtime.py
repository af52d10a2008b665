"""The acoustic model in PyTorch, on the CPU or a GPU, for whoever gives and takes NumPy arrays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from asr.model.acoustic import AcousticModel
from asr.model.streaming import Emissions, RNNState, StreamingModel

P = ParamSpec("P")
T = TypeVar("T")


def computing(method: Callable[Concatenate[TorchModel, P], T]) -> Callable[Concatenate[TorchModel, P], T]:
    """Runs without gradients, and with one thread: a second one would wait for the first at every frame."""

    @wraps(method)
    def run(model: TorchModel, *args: P.args, **kwargs: P.kwargs) -> T:
        if not getattr(model.prepared, "done", False):
            torch.set_num_threads(1)  # holds for the calling thread
            model.prepared.done = True
        with torch.inference_mode():
            return method(model, *args, **kwargs)

    return run


class TorchModel(StreamingModel):
    """`model` with NumPy arrays on all sides; it computes where its weights are."""

    def __init__(self, model: AcousticModel) -> None:
        super().__init__(model.config, model.mel_mean.cpu().numpy(), model.mel_std.cpu().numpy())
        self.model = model
        self.prepared = threading.local()

    @computing
    def forward(self, mel: np.ndarray, lengths: np.ndarray | None = None) -> tuple[Emissions, np.ndarray | None]:
        return self._arrays(*self.model(self._tensor(mel), self._tensor(lengths)))

    @computing
    def forward_chunked(
        self, mel: np.ndarray, lengths: np.ndarray | None, chunk: int, look_ahead: int
    ) -> tuple[Emissions, np.ndarray | None]:
        found = self.model.forward_chunked(self._tensor(mel), self._tensor(lengths), chunk, look_ahead)
        return self._arrays(*found)

    @computing
    def stem(self, mel: np.ndarray) -> np.ndarray:
        return self.model.stem(self._tensor(mel)).cpu().numpy()

    @computing
    def advance(
        self, window: np.ndarray, states: RNNState | None, commit: int, lengths: np.ndarray | None = None
    ) -> tuple[Emissions, RNNState]:
        before = None if states is None else tuple(self._tensor(part) for part in states)
        emissions, after = self.model.advance(self._tensor(window), before, commit, self._tensor(lengths))
        return self._arrays(emissions, None)[0], tuple(part.cpu().numpy() for part in after)

    def _tensor(self, array: np.ndarray | None) -> Any:
        return None if array is None else torch.from_numpy(array).to(self.model.mel_mean.device)

    @staticmethod
    def _arrays(emissions: dict[str, Tensor], lengths: Tensor | None) -> tuple[Emissions, np.ndarray | None]:
        arrays = {name: values.cpu().numpy() for name, values in emissions.items()}
        return arrays, None if lengths is None else lengths.cpu().numpy()
