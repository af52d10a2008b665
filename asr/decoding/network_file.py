"""Small networks as safetensors files: half-precision weights, and JSON of what they are for in the metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from asr.atomic import replacing
from asr.errors import CheckpointError

Weights = Mapping[str, np.ndarray]
T = TypeVar("T")


def save(path: Path, weights: Weights, **metadata: Any) -> None:
    """The file appears whole or not at all."""
    halves = {name: np.ascontiguousarray(values, np.float16) for name, values in weights.items()}
    with replacing(path) as part:
        save_file(halves, part, {key: json.dumps(value) for key, value in metadata.items()})


def load(path: Path, kind: str, build: Callable[[dict[str, Any], Weights], T]) -> T:
    """What `build` makes of the metadata and of the weights in float32. Raises CheckpointError, which calls the file a
    `kind`, if it is missing or broken, or if `build` raises ValueError, KeyError or TypeError."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            weights = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
        return build(metadata, weights)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} is not a usable {kind} ({reason:.200}): copy the checkpoint again or train it anew."
        ) from error


def check_shapes(weights: Weights, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError naming the tensor that is missing, not asked for or of another shape."""
    for name, shape in expected.items():
        if name not in weights:
            raise ValueError(f"it has no tensor '{name}'")
        if weights[name].shape != shape:
            raise ValueError(f"tensor '{name}' has shape {weights[name].shape} instead of {shape}")
    if unknown := sorted(set(weights) - set(expected)):
        raise ValueError(f"it has a tensor '{unknown[0]}' that nothing asks for")
