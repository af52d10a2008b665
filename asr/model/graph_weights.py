"""The weights of the acoustic model's ONNX graphs, by the names that the graphs (`export`) have for them.

PyTorch and ONNX order the gates differently: an LSTM's i, f, g, o are i, o, f, c there, a GRU's r, z, n are z, r, h.

ONNX Runtime has 8-bit weights for the LSTM alone (DynamicQuantizeLSTM). It quantizes inputs and states by the largest
and the smallest of a whole batch, so what shares a batch would change the result. Guards fix the scale: two more inputs
that are always the largest and the smallest that may come, and two more units that always say 1 and −1. To the others
their weights are zero.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np

from asr.errors import CheckpointError
from asr.model.checkpoint import Arrays, Config
from asr.model.integrity import GRAPHS

FORMAT = 1  # of the graphs: their nodes, and the names and meaning of their weights
STEM, ENCODER, ENCODER_INT8 = GRAPHS
GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}  # PyTorch's gates in ONNX's order
MAX_WEIGHT = 63  # of 8 bits: with 7, two products fit into the 16 bits in which processors without VNNI add
MAX_DEVIATIONS = 5.0  # of normalized values over their root mean square: what lies beyond is cut off
SHUT, OPEN = -30.0, 30.0  # a gate's bias
GUARDS = (SHUT, OPEN, OPEN, 0.0)  # biases of units that keep their cells, in ONNX's order


def all_weights(weights: Arrays, cell: str) -> dict[str, dict[str, np.ndarray]]:
    """Those of every graph that a checkpoint with these weights can have."""
    kinds = {ENCODER: False, ENCODER_INT8: True} if cell == "lstm" else {ENCODER: False}
    return {STEM: stem_weights(weights)} | {name: encoder_weights(weights, cell, int8) for name, int8 in kinds.items()}


def facts(config: Config, bands: int) -> str:
    """What a graph depends on besides the values of its weights."""
    heads = {name: len(tokens) for name, tokens in config.tokens.items()}
    return json.dumps({"format": FORMAT, "model": asdict(config.model), "bands": bands, "heads": heads})


def stem_weights(weights: Arrays) -> dict[str, np.ndarray]:
    """By the names that the graph has for them; those of the linear layer transposed."""
    found = {name: values for name, values in weights.items() if name.startswith("stem.")}
    return found | {"stem.linear.weight": np.ascontiguousarray(weights["stem.linear.weight"].T)}


def encoder_weights(weights: Arrays, cell: str, int8: bool = False) -> dict[str, np.ndarray]:
    """By the names that the graph has for them. With `int8` RNNs and linear layers have 8-bit weights, a scale for each
    output, and the scalar that their inputs are cut off at. Raises CheckpointError for 8-bit GRUs and basic cells."""
    if int8 and cell != "lstm":
        raise CheckpointError(f"ONNX Runtime has no 8-bit weights for cells of kind '{cell}': leave out --int8.")
    found: dict[str, np.ndarray] = {}
    for name, values in weights.items():
        module, _, kind = name.rpartition(".")
        if module.endswith("norm"):
            found[name] = values
            if int8 and kind == "weight":
                found |= _limits(module, MAX_DEVIATIONS * _root_mean_square(values, weights[f"{module}.bias"]))
        elif module.endswith("_rnn") and kind == "weight_ih_l0":
            found |= _rnn(weights, module, cell, int8)
        elif module.endswith(".proj") or module.startswith("heads."):
            found |= {name: values} if kind == "bias" else _matrix(name, values.T, int8)
    return found


def _rnn(weights: Arrays, module: str, cell: str, int8: bool) -> dict[str, np.ndarray]:
    """W (1, gates, in), R (1, gates, H) and B (1, 2 gates) as ONNX wants them; in 8 bits W and R transposed."""

    def gates(kind: str, *padding: tuple[int, int], guards: tuple[float, ...] = (0.0,) * 4) -> np.ndarray:
        parts = np.split(weights[f"{module}.{kind}_l0"], len(GATES[cell]))
        return np.concatenate(
            [
                np.pad(parts[i], padding, constant_values=value) if int8 else parts[i]
                for i, value in zip(GATES[cell], guards, strict=False)
            ]
        )

    bias = np.concatenate([gates("bias_ih", (0, 2), guards=GUARDS), gates("bias_hh", (0, 2))])
    found = {f"{module}.B": bias[None]}
    for name, kind in (("W", "weight_ih"), ("R", "weight_hh")):
        matrix = gates(kind, (0, 2), (0, 2))[None]
        found |= _matrix(f"{module}.{name}", matrix.transpose(0, 2, 1) if int8 else matrix, int8)
    return found


def _matrix(name: str, matrix: np.ndarray, int8: bool) -> dict[str, np.ndarray]:
    """(…, in, out); in 8 bits with scales and zero points (…, out)."""
    if not int8:
        return {name: np.ascontiguousarray(matrix)}
    scale = np.maximum(np.abs(matrix).max(axis=-2) / MAX_WEIGHT, np.float32(1e-12))
    integers = np.ascontiguousarray(np.round(matrix / scale[..., None, :]).astype(np.int8))
    return {name: integers, f"{name}.scale": scale, f"{name}.zero": np.zeros(scale.shape, np.int8)}


def _limits(module: str, limit: float) -> dict[str, np.ndarray]:
    values = {"high": limit, "low": -limit}
    if module == "norm":  # the heads' inputs
        values["scale"] = limit / 127
    return {f"{module}.{name}": np.array(value, np.float32) for name, value in values.items()}


def _root_mean_square(scale: np.ndarray, shift: np.ndarray) -> float:
    return float(np.sqrt((np.square(scale) + np.square(shift)).mean()))
