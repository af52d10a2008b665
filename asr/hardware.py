"""What this computer has, and what is fast on it."""
from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def cores() -> int:
    """Of the processor, as many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether a GPU, or a CPU with instructions for it; without them training takes 16 times as long as in float32."""
    import torch

    return device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
