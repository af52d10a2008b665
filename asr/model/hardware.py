"""What this computer has, and what is fast on it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from asr.errors import RillError

if TYPE_CHECKING:
    import torch

NO_GPU = "There is no CUDA GPU that PyTorch can use: choose the device 'cpu' or 'auto'."


def cores() -> int:
    """Of the processor, as many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(count: int) -> None:
    """How many threads NumPy's matrix library, and PyTorch where it is loaded, compute with in this process.

    The products of recognition are small: a second thread would wait for the first at each of them.
    """
    threadpool_limits(count, "blas")
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)


def training_device(name: str) -> str:
    """ "cuda" or "cpu", also for "auto". Raises RillError where there is no such device."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise RillError(NO_GPU)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether a GPU, or a CPU with instructions for it; without them training takes 16 times as long as in float32."""
    import torch

    return device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
