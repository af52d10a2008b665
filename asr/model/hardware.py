"""What this computer has, and what is fast on it."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from asr.errors import RillError

if TYPE_CHECKING:
    import torch

NO_GPU = "There is no CUDA GPU that PyTorch can use: choose the device 'cpu' or 'auto'."
NO_TORCH = (
    "The engine 'torch' and the device 'cuda' need PyTorch, which is not installed: pip install 'rill-asr[train]', or "
    "choose the engine 'onnx' on the device 'cpu'."
)


def cores() -> int:
    """Of the processor, as many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Its name, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            named = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.processor() or platform.machine()


def set_threads(count: int) -> None:
    """How many threads NumPy's matrix library computes with in this process.

    The products of recognition are small: a second thread would wait for the first at each of them.
    """
    threadpool_limits(count, "blas")


def has_gpu() -> bool:
    """Whether there is a CUDA GPU that PyTorch can use. PyTorch, which takes seconds to import, is asked only where
    NVIDIA's driver is there."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        import torch
    except (OSError, ModuleNotFoundError):
        return False
    return torch.cuda.is_available()


def training_device(name: str) -> str:
    """ "cuda" or "cpu", also for "auto". Raises RillError where there is no such device."""
    if name == "cuda" and not has_gpu():
        raise RillError(NO_GPU)
    if name == "auto":
        return "cuda" if has_gpu() else "cpu"
    return name


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether a GPU, or a CPU with instructions for it; without them training takes 16 times as long as in float32."""
    import torch

    return device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
