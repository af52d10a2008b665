"""A checkpoint as ONNX: graphs built node by node, with the weights of `graph_weights` or without.

    stem.onnx      mel (B, T + 2 context, bands), normalized → frames (B, F, H)
    encoder.onnx   frames (B, commit + look-ahead, H), lengths (B,), commit (1,), states h and c (layers, B, H)
                   → log-probabilities of every head (B, commit + look-ahead, V), states h_after and c_after

One encoder serves every latency. A live step is a window of chunk and look-ahead, of which `commit` frames count and
leave their states behind; the offline pass is a window that holds whole utterances, all of it committed, the states
zero. `lengths`, 1 at least, are the real frames of each window. Every RNN is one LSTM, GRU or RNN node of any length,
never unrolled frame by frame, so short last chunks and batches need nothing else.

`write` makes files for other programs: with weights; their metadata hold config.json, the bands' mean and deviation,
and the context of the stem. `write_skeletons` makes a checkpoint's own, without weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from asr.atomic import replacing
from asr.errors import CheckpointError
from asr.model import checkpoint, graph_weights
from asr.model.checkpoint import Arrays, Checkpoint, Config
from asr.model.integrity import CONFIG
from asr.model.streaming import STRIDES, ModelConfig

OPSET, IR_VERSION = 17, 8  # the oldest that have layer normalization as one node
MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators
OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
NORM_EPSILON = 1e-5
SATURATED = 20.0  # a cell whose tanh is 1
END = np.iinfo(np.int64).max

Shape = Sequence[str | int]


class Graph:
    """Nodes as they are added; a method returns the names of what its nodes compute. `weights` are the weights by
    name: with 8-bit ones, inputs of RNNs and linear layers are quantized to 8 bits, too. Without `stored` they are only
    named, and whoever runs the graph supplies them."""

    def __init__(self, weights: Arrays, int8: bool, stored: bool) -> None:
        self.weights, self.int8, self.stored = weights, int8, stored
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: np.ndarray | Sequence[int]) -> str:
        array = value if isinstance(value, np.ndarray) else np.array(value, dtype=np.int64)
        self.constants.append(numpy_helper.from_array(array, f"constant_{len(self.constants)}"))
        return self.constants[-1].name

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def add(self, operator: str, *inputs: str, outputs: Sequence[str] | int = 1, **attributes: Any) -> list[str]:
        if isinstance(outputs, int):
            outputs = [f"{operator}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return list(outputs)

    def linear(self, module: str, x: str, scale: str = "") -> str:
        """`scale` names that of the 8-bit inputs, an eighth bit's worth."""
        weight = f"{module}.weight"
        if self.int8:
            zero = self.constant(np.array(128, dtype=np.uint8))
            (x,) = self.add("QuantizeLinear", x, scale, zero)
            (x,) = self.add(
                "MatMulIntegerToFloat", x, weight, scale, f"{weight}.scale", zero, f"{weight}.zero", domain=MICROSOFT
            )
        else:
            (x,) = self.add("MatMul", x, weight)
        return self.add("Add", x, f"{module}.bias")[0]

    def norm(self, module: str, x: str) -> str:
        (x,) = self.add("LayerNormalization", x, f"{module}.weight", f"{module}.bias", axis=-1, epsilon=NORM_EPSILON)
        return self.add("Clip", x, f"{module}.low", f"{module}.high")[0] if self.int8 else x

    def guarded(self, x: str, high: str, low: str) -> str:
        """With 8 bits, two values more at the end of the last axis of (…, …, n): the largest and the smallest."""
        for value in (high, low) if self.int8 else ():
            (x,) = self.add("Pad", x, self.constant([0, 0, 0, 0, 0, 1]), value)
        return x

    def guarded_state(self, x: str, limit: float) -> str:
        return self.guarded(x, self.scalar(limit), self.scalar(-limit))

    def unguarded(self, x: str) -> str:
        if self.int8:
            (x,) = self.add("Slice", x, self.constant([0]), self.constant([-2]), self.constant([-1]))
        return x

    def rnn(
        self,
        module: str,
        config: ModelConfig,
        x: str,
        states: Sequence[str],
        *,
        lengths: str = "",
        direction: str = "forward",
    ) -> tuple[str, list[str]]:
        """(F, B, H) from the given states, "" for zeros → outputs (F, B, H), and the states after the last frame.
        Inputs and states are guarded, outputs are not."""
        operator, size = OPERATORS[config.cell], config.hidden
        attributes: dict[str, Any] = {"linear_before_reset": 1} if operator == "GRU" else {}
        w, r, b = (f"{module}.{name}" for name in ("W", "R", "B"))
        scales: list[str] = []
        if self.int8:
            operator, size, attributes = f"DynamicQuantize{operator}", size + 2, {"domain": MICROSOFT}
            scales = ["", f"{w}.scale", f"{w}.zero", f"{r}.scale", f"{r}.zero"]
        y, *after = self.add(
            operator,
            *(x, w, r, b, lengths, *states, *scales),
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
            [*self.constants, *(self._initializer(name, values) for name, values in self.weights.items())],
        )
        domains = [helper.make_opsetid("", OPSET)] + [helper.make_opsetid(MICROSOFT, 1)] * self.int8
        return helper.make_model(graph, producer_name="rill", opset_imports=domains, ir_version=IR_VERSION)

    def _initializer(self, name: str, values: np.ndarray) -> TensorProto:
        if self.stored:
            return numpy_helper.from_array(np.ascontiguousarray(values), name)
        tensor = TensorProto(
            name=name,
            dims=values.shape,
            data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
            data_location=TensorProto.EXTERNAL,
        )
        tensor.external_data.add(key="location", value="model.safetensors")  # ONNX wants a name; nothing reads it
        return tensor


def stem(config: Config, weights: Arrays, bands: int, stored: bool = True) -> ModelProto:
    """The convolutional stem, as in `acoustic.Stem`. Its weights stay in float32: they are 5 % of the work."""
    graph = Graph(weights, int8=False, stored=stored)
    (x,) = graph.add("Unsqueeze", "mel", graph.constant([1]))
    for conv, stride in zip(("stem.conv1", "stem.conv2"), STRIDES[config.model.subsampling], strict=True):
        (x,) = graph.add("Conv", x, f"{conv}.weight", f"{conv}.bias", strides=[stride, 2], pads=[0, 1, 0, 1])
        (x,) = graph.add("Relu", x)
    (x,) = graph.add("Transpose", x, perm=[0, 2, 1, 3])
    (x,) = graph.add("Reshape", x, graph.constant([0, 0, -1]))
    graph.add("Identity", graph.linear("stem.linear", x), outputs=["frames"])
    return graph.model(
        {"mel": (TensorProto.FLOAT, ["batch", "mel", bands])}, {"frames": ["batch", "frames", config.model.hidden]}
    )


def encoder(config: Config, weights: Arrays, int8: bool = False, stored: bool = True) -> ModelProto:
    """All layers and heads, as in `AcousticModel.advance`."""
    c = config.model
    graph, names = Graph(weights, int8, stored), ("h", "c") if c.cell == "lstm" else ("h",)
    begin, end, each = graph.constant([0]), graph.constant([END]), graph.constant([1] * c.layers)
    states = [graph.add("Split", name, each, outputs=c.layers, axis=0) for name in names]
    (x,) = graph.add("Transpose", "frames", perm=[1, 0, 2])
    # A GRU over no frame crashes ONNX Runtime, so every look-ahead has one, hidden by `lengths` where it is not real.
    (width,) = graph.add("Shape", x, start=0, end=1)
    (used,) = graph.add("Add", "commit", graph.constant([1]))
    (missing,) = graph.add("Sub", graph.add("Max", used, width)[0], width)
    (padding,) = graph.add("Concat", graph.constant([0, 0, 0]), missing, graph.constant([0, 0]), axis=0)
    (x,) = graph.add("Pad", x, padding)
    limits = (1.0, SATURATED)
    one = graph.scalar(1.0 / 127) if int8 else ""
    nothing = [""] * len(names)
    if int8:
        (zeros,) = graph.add("ConstantOfShape", graph.add("Shape", states[0][0])[0])
        nothing = [graph.guarded_state(zeros, limit) for limit in limits]
    after = []
    for layer, *before in zip(range(c.layers), *states, strict=True):
        module = f"layers.{layer}"
        before = [graph.guarded_state(state, limit) for state, limit in zip(before, limits, strict=False)]
        normed = graph.guarded(graph.norm(f"{module}.norm", x), f"{module}.norm.high", f"{module}.norm.low")
        (chunk,) = graph.add("Slice", normed, begin, "commit", begin)
        (ahead,) = graph.add("Slice", normed, "commit", end, begin)
        chunk, carried = graph.rnn(f"{module}.forward_rnn", c, chunk, before)
        ahead, _ = graph.rnn(f"{module}.forward_rnn", c, ahead, carried)
        (forward,) = graph.add("Concat", chunk, ahead, axis=0)
        backward, _ = graph.rnn(
            f"{module}.backward_rnn",
            c,
            normed,
            nothing,
            lengths="lengths",
            direction="reverse",
        )
        (both,) = graph.add("Concat", forward, backward, axis=-1)
        (x,) = graph.add("Add", x, graph.linear(f"{module}.proj", both, one))
        after.append([graph.unguarded(state) for state in carried])
    for name, parts in zip(names, zip(*after, strict=True), strict=True):
        graph.add("Concat", *parts, outputs=[f"{name}_after"], axis=0)
    x = graph.norm("norm", graph.add("Slice", x, begin, width, begin)[0])
    outputs: dict[str, Shape] = {}
    for name, tokens in config.tokens.items():
        (scores,) = graph.add("LogSoftmax", graph.linear(f"heads.{name}", x, "norm.scale"), axis=-1)
        graph.add("Transpose", scores, outputs=[name], perm=[1, 0, 2])
        outputs[name] = ["batch", "frames", len(tokens)]
    state: Shape = [c.layers, "batch", c.hidden]
    inputs: dict[str, tuple[int, Shape]] = {
        "frames": (TensorProto.FLOAT, ["batch", "frames", c.hidden]),
        "lengths": (TensorProto.INT32, ["batch"]),
        "commit": (TensorProto.INT64, [1]),
    }
    return graph.model(
        inputs | {name: (TensorProto.FLOAT, state) for name in names},
        outputs | {f"{name}_after": state for name in names},
    )


def skeleton(name: str, config: Config, bands: int, weights: Arrays) -> bytes:
    """One of a checkpoint's own graphs; of its weights, by the graph's names, only kind and shape count."""
    if name == graph_weights.STEM:
        graph = stem(config, weights, bands, stored=False)
    else:
        graph = encoder(config, weights, name == graph_weights.ENCODER_INT8, stored=False)
    helper.set_model_props(graph, {"facts": graph_weights.facts(config, bands)})
    return graph.SerializeToString()


def save_checkpoint(folder: Path, config: Config, weights: Arrays) -> None:
    """A checkpoint with its graphs; each file appears whole or not at all."""
    checkpoint.save(folder, config, weights)
    write_skeletons(folder, config, weights)


def write_skeletons(folder: Path, config: Config, weights: Arrays) -> None:
    """All graphs that a checkpoint with these weights can have; each appears whole or not at all."""
    bands = len(weights["mel_mean"])
    for name, supplied in graph_weights.all_weights(weights, config.model.cell).items():
        with replacing(folder / name) as part:
            part.write_bytes(skeleton(name, config, bands, supplied))
    checkpoint.record(folder, *graph_weights.all_weights(weights, config.model.cell))


def write(loaded: Checkpoint, folder: Path, int8: bool = False) -> list[Path]:
    """`stem.onnx` and `encoder.onnx`; each appears whole or not at all. Raises CheckpointError for 8-bit GRUs and basic
    cells, and for a checkpoint's folder."""
    if (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} is a checkpoint, which has graphs of these names: export to another folder.")
    config, weights = loaded.config, loaded.weights()
    supplied = graph_weights.encoder_weights(weights, config.model.cell, int8)
    files = {
        graph_weights.STEM: stem(config, graph_weights.stem_weights(weights), len(loaded.mel_mean)),
        graph_weights.ENCODER: encoder(config, supplied, int8),
    }
    metadata = {
        "config": {key: value for key, value in dataclasses.asdict(config).items() if key != "files"},
        "context": config.model.context,
        "mel_mean": loaded.mel_mean.tolist(),
        "mel_std": loaded.mel_std.tolist(),
    }
    for file, graph in files.items():
        helper.set_model_props(graph, {key: json.dumps(value) for key, value in metadata.items()})
        with replacing(folder / file) as part:
            part.write_bytes(graph.SerializeToString())
    return [folder / file for file in files]
