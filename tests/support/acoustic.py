"""A small acoustic model with random weights, and its three ways of running."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings as hypothesis_settings

from asr.audio import features
from asr.audio.features import FrontendConfig
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import Checkpoint, Config
from asr.model.streaming import Emissions, ModelConfig, StreamingModel, StreamState
from asr.model.tokens import TokenSet
from asr.model.torch_runtime import TorchModel

BANDS = 10
HEADS = {"characters": 6, "phonemes": 9}
KINDS = [(cell, subsampling) for cell in ("rnn", "gru", "lstm") for subsampling in (4, 3)]
LATENCIES = [(1, 0), (1, 3), (2, 7), (4, 2), (8, 4), (5, 0)]
every_kind = pytest.mark.parametrize("cell, subsampling", KINDS)
settings = functools.partial(hypothesis_settings, deadline=None)


@functools.cache
def small_model(cell: str, subsampling: int, layers: int = 3) -> AcousticModel:
    """Random weights, a little larger than PyTorch's, so that state and context matter well beyond the tolerance."""
    torch.manual_seed(layers)
    model = AcousticModel(
        ModelConfig(cell, hidden=8, layers=layers, stem_channels=8, subsampling=subsampling), BANDS, HEADS
    )
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    model.mel_mean.normal_()
    model.mel_std.uniform_(0.5, 2)
    return model.eval().requires_grad_(False)


def small_runtime(cell: str, subsampling: int, layers: int = 3) -> TorchModel:
    return TorchModel(small_model(cell, subsampling, layers))


def small_checkpoint(model: AcousticModel) -> Checkpoint:
    """A model with random weights as a checkpoint that lies in no folder."""
    tokens = {
        name: TokenSet(tuple(map(str, range(count))), "0", "1", (0.1,) * count)
        for name, count in ((name, head.out_features) for name, head in model.heads.items())
    }
    config = Config("small", "en", "CC0", FrontendConfig(mels=BANDS), model.config, tokens)
    return Checkpoint(Path("nowhere"), config, features.build(config.frontend), model.weights())


def mel_frames(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal((*shape, BANDS)).astype(np.float32)


def drain(model: StreamingModel, state: StreamState, chunk: int, look_ahead: int) -> list[Emissions]:
    """All chunks that can be committed."""
    out = []
    while (step := model.step(state, chunk, look_ahead)) is not None:
        out.append(step[0])
    return out


def stream(model: StreamingModel, mel: np.ndarray, cuts: list[int], chunk: int, look_ahead: int) -> Emissions:
    """Emissions of `mel` handed over in pieces that end at `cuts`."""
    state, parts = model.stream_state(), []
    pieces = np.split(mel, cuts)
    for number, piece in enumerate(pieces, 1):
        model.push(state, piece, last=number == len(pieces))
        parts += drain(model, state, chunk, look_ahead)
    return {name: np.concatenate([part[name] for part in parts]) for name in HEADS}


def chunked(model: StreamingModel, mel: np.ndarray, chunk: int, look_ahead: int) -> Emissions:
    out, _ = model.forward_chunked(mel[None], None, chunk, look_ahead)
    return {name: values[0] for name, values in out.items()}


def full(model: StreamingModel, mel: np.ndarray) -> Emissions:
    return {name: values[0] for name, values in model.forward(mel[None])[0].items()}


def assert_same(got, expected, tolerance=1e-4):
    assert set(got) == set(expected) == set(HEADS)
    for name in HEADS:
        np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=tolerance)


def assert_differs(got, expected):
    assert max(np.abs(got[name] - expected[name]).max() for name in HEADS) > 1e-3
