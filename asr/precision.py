"""Which number format is fast where."""
from __future__ import annotations

import torch


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether a GPU, or a CPU with instructions for it; without them training takes 16 times as long as in float32."""
    return device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
