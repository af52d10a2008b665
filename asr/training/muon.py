"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): momentum, made orthogonal before each step.

`torch.optim.Muon` computes in bfloat16, which takes 30 times as long on a CPU that has no instructions for it; this one
computes in the parameters' own precision, and iterates on the smaller square matrix.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

MOMENTUM = 0.95
COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the quintic polynomial that drives singular values to about 1
ITERATIONS = 5
RMS = 0.2  # of a step's entries, as AdamW's (Liu et al. 2025, arXiv 2502.16982): one learning rate serves both


class Muon(torch.optim.Optimizer):
    """For matrices between hidden layers. Weight decay is decoupled, as AdamW's.

    torch.distributed's processes, whose gradients are equal, share the work: each turns some of the matrices.
    """

    def __init__(self, matrices: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        for group in self.param_groups:
            matrices = [each for each in group["params"] if each.grad is not None]
            steps = [torch.zeros_like(each) for each in matrices]
            for index, matrix in enumerate(matrices):
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
                if index % world == rank:
                    steps[index] = orthogonal(matrix.grad.lerp(momentum, MOMENTUM)).contiguous()  # Nesterov's
            for index, (matrix, step) in enumerate(zip(matrices, steps, strict=True)):
                if world > 1:
                    dist.broadcast(step, index % world)
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(step, alpha=-group["lr"] * RMS * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """About U Vᵀ of a matrix's singular value decomposition U S Vᵀ: singular values that are not far smaller than the
    largest one come to lie between 0.7 and 1.2.

    Newton and Schulz's iteration X ← (a + b X Xᵀ + c (X Xᵀ)²) X. Its polynomials are multiplied first, which needs X Xᵀ
    only, and X once at the end.
    """
    a, b, c = COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    one = torch.eye(len(x), dtype=x.dtype, device=x.device)
    gram, product = x @ x.T, one
    for _ in range(ITERATIONS):
        polynomial = torch.addmm(torch.add(a * one, gram, alpha=b), gram, gram, alpha=c)
        product = polynomial @ product
        gram = polynomial @ gram @ polynomial
    x = product @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x
