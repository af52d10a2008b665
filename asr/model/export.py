"""A checkpoint as ONNX, for runtimes other than PyTorch: graphs built node by node from the weights.

    stem.onnx      mel (B, T + 2 context, bands), normalized → frames (B, F, H)
    encoder.onnx   frames (B, commit + look-ahead, H), lengths (B,), commit (1,), states h and c (layers, B, H)
                   → log-probabilities of every head (B, commit + look-ahead, V), states h_after and c_after

One encoder serves every latency. A live step is a window of chunk and look-ahead, of which `commit` frames count and
leave their states behind; the offline pass is a window that holds whole utterances, all of it committed, the states
zero. `lengths`, 1 at least, are the real frames of each window. Every RNN is one LSTM, GRU or RNN node of any length,
never unrolled frame by frame, so short last chunks and batches need nothing else. The metadata of both files hold
config.json, the bands' mean and deviation, and the context of the stem.

PyTorch and ONNX order the gates differently: an LSTM's i, f, g, o are i, o, f, c there, a GRU's r, z, n are z, r, h.

ONNX Runtime has 8-bit weights for the LSTM alone (DynamicQuantizeLSTM). It quantizes inputs and states by the largest
and the smallest of a whole batch, so what shares a batch would change the result. Guards fix the scale: two more inputs
that are always the largest and the smallest that may come, and two more units that always say 1 and −1. To the others
their weights are zero.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from asr.atomic import replacing
from asr.errors import CheckpointError
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import Checkpoint

OPSET, IR_VERSION = 17, 8  # the oldest that have layer normalization as one node
MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN_TANH": (0,)}  # PyTorch's gates in ONNX's order
MAX_WEIGHT = 63  # of 8 bits: with 7, two products fit into the 16 bits in which processors without VNNI add
MAX_DEVIATIONS = 5.0  # of normalized values over their root mean square: what lies beyond is cut off
SHUT, OPEN = -30.0, 30.0  # a gate's bias
SATURATED = 20.0  # a cell whose tanh is 1
GUARDS = (SHUT, OPEN, OPEN, 0.0)  # biases of units that keep their cells, in ONNX's order
END = np.iinfo(np.int64).max

Shape = Sequence[str | int]


class Graph:
    """Nodes and weights as they are added; a method returns the names of what its nodes compute. With `int8` RNNs and
    linear layers have 8-bit weights, a scale for each output, and their inputs are quantized to 8 bits."""

    def __init__(self, int8: bool) -> None:
        self.int8 = int8
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, value: np.ndarray | Tensor | Sequence[int]) -> str:
        if isinstance(value, Tensor):
            value = value.detach().float().cpu().numpy()
        array = value if isinstance(value, np.ndarray) else np.array(value, dtype=np.int64)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), f"constant_{len(self.weights)}"))
        return self.weights[-1].name

    def add(self, operator: str, *inputs: str, outputs: Sequence[str] | int = 1, **attributes: Any) -> list[str]:
        if isinstance(outputs, int):
            outputs = [f"{operator}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return list(outputs)

    def quantized(self, weight: Tensor) -> list[str]:
        """(…, in, out) → the names of the 8-bit weights, their scales (…, out) and their zero points."""
        scale = (weight.abs().amax(dim=-2) / MAX_WEIGHT).clamp(min=1e-12)
        integers = (weight / scale.unsqueeze(-2)).round().to(torch.int8).numpy()
        return [self.constant(integers), self.constant(scale), self.constant(np.zeros(scale.shape, dtype=np.int8))]

    def linear(self, layer: nn.Linear, x: str, limit: float = math.inf) -> str:
        """Of values between −`limit` and `limit`, which must be known to make 8 bits of them."""
        weight = layer.weight.detach().float().cpu().T
        if self.int8:
            scale, zero = self.scalar(limit / 127), self.constant(np.array(128, dtype=np.uint8))
            (x,) = self.add("QuantizeLinear", x, scale, zero)
            integers, scales, zeros = self.quantized(weight)
            (x,) = self.add("MatMulIntegerToFloat", x, integers, scale, scales, zero, zeros, domain=MICROSOFT)
        else:
            (x,) = self.add("MatMul", x, self.constant(weight))
        return self.add("Add", x, self.constant(layer.bias))[0]

    def norm(self, layer: nn.LayerNorm, x: str) -> tuple[str, float]:
        """Also the limit of what comes out, which 8-bit values are cut off at."""
        (x,) = self.add(
            "LayerNormalization", x, self.constant(layer.weight), self.constant(layer.bias), axis=-1, epsilon=layer.eps
        )
        limit = MAX_DEVIATIONS * float((layer.weight.detach().square() + layer.bias.detach().square()).mean().sqrt())
        if self.int8:
            (x,) = self.add("Clip", x, self.scalar(-limit), self.scalar(limit))
        return x, limit

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def guarded(self, x: str, limit: float) -> str:
        """With 8 bits, two values more at the end of the last axis of (…, …, n): the largest and the smallest."""
        for value in (limit, -limit) if self.int8 else ():
            (x,) = self.add("Pad", x, self.constant([0, 0, 0, 0, 0, 1]), self.scalar(value))
        return x

    def unguarded(self, x: str) -> str:
        if self.int8:
            (x,) = self.add("Slice", x, self.constant([0]), self.constant([-2]), self.constant([-1]))
        return x

    def rnn_weights(self, rnn: nn.RNNBase) -> tuple[list[str], list[str]]:
        """The inputs of a node before and behind its lengths and states; several nodes may share them."""

        def gates(name: str, *padding: int, guards: Sequence[float] = (0.0,) * 4) -> Tensor:
            parts = getattr(rnn, f"{name}_l0").detach().float().cpu().chunk(len(GATES[rnn.mode]))
            order = zip(GATES[rnn.mode], guards, strict=False)
            return torch.cat([F.pad(parts[i], padding, value=value) if self.int8 else parts[i] for i, value in order])

        bias = self.constant(torch.cat([gates("bias_ih", 0, 2, guards=GUARDS), gates("bias_hh", 0, 2)])[None])
        w, r = (gates(name, 0, 2, 0, 2)[None] for name in ("weight_ih", "weight_hh"))
        if not self.int8:
            return [self.constant(w), self.constant(r), bias], []
        w_names, r_names = self.quantized(w.transpose(1, 2)), self.quantized(r.transpose(1, 2))
        return [w_names[0], r_names[0], bias], ["", *w_names[1:], *r_names[1:]]

    def rnn(
        self,
        rnn: nn.RNNBase,
        weights: tuple[list[str], list[str]],
        x: str,
        states: Sequence[str],
        *,
        lengths: str = "",
        direction: str = "forward",
    ) -> tuple[str, list[str]]:
        """(F, B, H) from the given states, "" for zeros → outputs (F, B, H), and the states after the last frame.
        Inputs and states are guarded, outputs are not."""
        operator = rnn.mode.removesuffix("_TANH")
        size = rnn.hidden_size
        attributes: dict[str, Any] = {"linear_before_reset": 1} if operator == "GRU" else {}
        if self.int8:
            operator, size, attributes = f"DynamicQuantize{operator}", size + 2, {"domain": MICROSOFT}
        y, *after = self.add(
            operator,
            x,
            *weights[0],
            lengths,
            *states,
            *weights[1],
            outputs=1 + len(states),
            hidden_size=size,
            direction=direction,
            **attributes,
        )
        (y,) = self.add("Squeeze", y, self.constant([1]))  # of the axis of directions
        return self.unguarded(y), after

    def model(self, inputs: Mapping[str, tuple[int, Shape]], outputs: Mapping[str, Shape]) -> ModelProto:
        """Inputs: name → kind and shape; outputs are float32."""
        graph = helper.make_graph(
            self.nodes,
            "rill",
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            self.weights,
        )
        domains = [helper.make_opsetid("", OPSET)] + [helper.make_opsetid(MICROSOFT, 1)] * self.int8
        return helper.make_model(graph, producer_name="rill", opset_imports=domains, ir_version=IR_VERSION)


def stem(model: AcousticModel) -> ModelProto:
    """The convolutional stem, as in `model.Stem`. Its weights stay in float32: they are 5 % of the work."""
    graph, module = Graph(int8=False), model.stem
    (x,) = graph.add("Unsqueeze", "mel", graph.constant([1]))
    for conv in (module.conv1, module.conv2):
        (x,) = graph.add(
            "Conv", x, *map(graph.constant, conv.parameters()), strides=conv.stride, pads=[*conv.padding, *conv.padding]
        )
        (x,) = graph.add("Relu", x)
    (x,) = graph.add("Transpose", x, perm=[0, 2, 1, 3])
    (x,) = graph.add("Reshape", x, graph.constant([0, 0, -1]))
    graph.add("Identity", graph.linear(module.linear, x), outputs=["frames"])
    return graph.model(
        {"mel": (TensorProto.FLOAT, ["batch", "mel", len(model.mel_mean)])},
        {"frames": ["batch", "frames", model.config.hidden]},
    )


def encoder(model: AcousticModel, int8: bool = False) -> ModelProto:
    """All layers and heads, as in `AcousticModel.advance`. Raises CheckpointError for 8-bit GRUs and basic cells."""
    config = model.config
    if int8 and config.cell != "lstm":
        raise CheckpointError(f"ONNX Runtime has no 8-bit weights for cells of kind '{config.cell}': leave out --int8.")
    graph, names = Graph(int8), ("h", "c") if config.cell == "lstm" else ("h",)
    begin, end, each = graph.constant([0]), graph.constant([END]), graph.constant([1] * config.layers)
    states = [graph.add("Split", name, each, outputs=config.layers, axis=0) for name in names]
    (x,) = graph.add("Transpose", "frames", perm=[1, 0, 2])
    # A GRU over no frame crashes ONNX Runtime, so every look-ahead has one, hidden by `lengths` where it is not real.
    (width,) = graph.add("Shape", x, start=0, end=1)
    (used,) = graph.add("Add", "commit", graph.constant([1]))
    (missing,) = graph.add("Sub", graph.add("Max", used, width)[0], width)
    (padding,) = graph.add("Concat", graph.constant([0, 0, 0]), missing, graph.constant([0, 0]), axis=0)
    (x,) = graph.add("Pad", x, padding)
    limits = (1.0, SATURATED)
    nothing = [""] * len(names)
    if int8:
        (zeros,) = graph.add("ConstantOfShape", graph.add("Shape", states[0][0])[0])
        nothing = [graph.guarded(zeros, limit) for limit in limits]
    after = []
    for layer, *before in zip(model.encoder(), *states, strict=True):
        before = [graph.guarded(state, limit) for state, limit in zip(before, limits, strict=False)]
        normed = graph.guarded(*graph.norm(layer.norm, x))
        (chunk,) = graph.add("Slice", normed, begin, "commit", begin)
        (ahead,) = graph.add("Slice", normed, "commit", end, begin)
        weights = graph.rnn_weights(layer.forward_rnn)
        chunk, carried = graph.rnn(layer.forward_rnn, weights, chunk, before)
        ahead, _ = graph.rnn(layer.forward_rnn, weights, ahead, carried)
        (forward,) = graph.add("Concat", chunk, ahead, axis=0)
        backward, _ = graph.rnn(
            layer.backward_rnn,
            graph.rnn_weights(layer.backward_rnn),
            normed,
            nothing,
            lengths="lengths",
            direction="reverse",
        )
        (both,) = graph.add("Concat", forward, backward, axis=-1)
        (x,) = graph.add("Add", x, graph.linear(layer.proj, both, 1.0))
        after.append([graph.unguarded(state) for state in carried])
    for name, parts in zip(names, zip(*after, strict=True), strict=True):
        graph.add("Concat", *parts, outputs=[f"{name}_after"], axis=0)
    x, limit = graph.norm(model.norm, graph.add("Slice", x, begin, width, begin)[0])
    outputs: dict[str, Shape] = {}
    for name, head in model.heads.items():
        assert isinstance(head, nn.Linear)
        (scores,) = graph.add("LogSoftmax", graph.linear(head, x, limit), axis=-1)
        graph.add("Transpose", scores, outputs=[name], perm=[1, 0, 2])
        outputs[name] = ["batch", "frames", head.out_features]
    state: Shape = [config.layers, "batch", config.hidden]
    inputs: dict[str, tuple[int, Shape]] = {
        "frames": (TensorProto.FLOAT, ["batch", "frames", config.hidden]),
        "lengths": (TensorProto.INT32, ["batch"]),
        "commit": (TensorProto.INT64, [1]),
    }
    return graph.model(
        inputs | {name: (TensorProto.FLOAT, state) for name in names},
        outputs | {f"{name}_after": state for name in names},
    )


def write(loaded: Checkpoint, folder: Path, int8: bool = False) -> list[Path]:
    """`stem.onnx` and `encoder.onnx`; each appears whole or not at all. Raises CheckpointError, as `encoder`."""
    model = loaded.model
    graphs = {"stem.onnx": stem(model), "encoder.onnx": encoder(model, int8)}
    metadata = {
        "config": dataclasses.asdict(loaded.config),
        "context": model.stem.context,
        "mel_mean": model.mel_mean.tolist(),
        "mel_std": model.mel_std.tolist(),
    }
    for file, graph in graphs.items():
        helper.set_model_props(graph, {key: json.dumps(value) for key, value in metadata.items()})
        with replacing(folder / file) as part:
            part.write_bytes(graph.SerializeToString())
    return [folder / file for file in graphs]
