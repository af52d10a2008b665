"""The acoustic model's graphs in ONNX Runtime, ready to run.

A checkpoint has its graphs without weights, a few kilobytes each. Every weight is handed to ONNX Runtime when a session
is made, computed from `model.safetensors`, so that no graph can be older than its weights and nothing is stored twice.
"""

from __future__ import annotations

import onnxruntime

from asr.errors import CheckpointError
from asr.model.checkpoint import Arrays, Checkpoint
from asr.model.graph_weights import ENCODER, ENCODER_INT8, STEM, encoder_weights, facts, stem_weights

onnxruntime.disable_telemetry_events()  # its Windows builds report events otherwise


def stem_session(checkpoint: Checkpoint) -> onnxruntime.InferenceSession:
    """Normalized mel frames → frames. Raises CheckpointError where the checkpoint's graph is missing or of another
    model."""
    return _session(checkpoint, STEM, stem_weights(checkpoint.weights()))


def encoder_session(checkpoint: Checkpoint, int8: bool = False) -> onnxruntime.InferenceSession:
    """Frames → emissions and states. Raises CheckpointError, also for 8-bit GRUs and basic cells."""
    weights = encoder_weights(checkpoint.weights(), checkpoint.config.model.cell, int8)
    return _session(checkpoint, ENCODER_INT8 if int8 else ENCODER, weights)


def _session(checkpoint: Checkpoint, name: str, weights: Arrays) -> onnxruntime.InferenceSession:
    """On one thread: a run computes on the thread that calls it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # would remember a plan for every shape that ever came
    options.enable_cpu_mem_arena = False  # would keep for ever what the largest batch took
    options.log_severity_level = 4  # what goes wrong is raised
    bands = checkpoint.frontend.bands
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in weights.values()]
    options.add_external_initializers(list(weights), values)
    graph = checkpoint.graph(name)
    if graph is None:
        graph = _built(checkpoint, name, weights)
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        fits = session.get_modelmeta().custom_metadata_map.get("facts") == facts(checkpoint.config, bands)
    except Exception as error:  # ONNX Runtime has no common base for its own
        raise CheckpointError(_unfit(checkpoint, name, " ".join(str(error).split()))) from error
    if not fits:
        raise CheckpointError(_unfit(checkpoint, name, "another model's"))
    return session


def _built(checkpoint: Checkpoint, name: str, weights: Arrays) -> bytes:
    """The graph that a checkpoint lacks, as those of earlier versions do."""
    try:
        from asr.model import export
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{checkpoint.path} has no {name}, and making it needs a package that is not there: "
            f"pip install onnx, or copy the whole checkpoint folder."
        ) from error
    return export.skeleton(name, checkpoint.config, checkpoint.frontend.bands, weights)


def _unfit(checkpoint: Checkpoint, name: str, reason: str) -> str:
    return (
        f"{checkpoint.path / name} does not fit the checkpoint ({reason:.200}): copy the whole checkpoint folder, or "
        f"delete the file and pip install onnx."
    )
