"""asr.training.muon: orthogonal steps."""

from __future__ import annotations

import pytest
import torch

from asr.training.muon import MOMENTUM, RMS, Muon, orthogonal


@pytest.mark.parametrize("shape", [(96, 32), (32, 96), (48, 48)])
def test_a_step_turns_as_the_matrix_does_and_stretches_no_direction(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ orthogonal(matrix) @ v.T
    strong = s > 0.1 * s.max()
    assert strong.sum() > 30
    assert ((found.diagonal()[strong] > 0.6) & (found.diagonal()[strong] < 1.25)).all()
    assert (found - torch.diag(found.diagonal())).abs().max() < 1e-3  # no direction leaks into another


def test_precision_is_enough_for_a_gradient_of_low_rank() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(64, 3) @ torch.randn(3, 128) + 1e-6 * torch.randn(64, 128)
    assert torch.linalg.norm(orthogonal(matrix) - orthogonal(matrix.double())) < 0.01
    assert torch.equal(orthogonal(torch.zeros(4, 8)), torch.zeros(4, 8))


def test_steps_are_those_of_torch() -> None:
    """In bfloat16 there, so roughly."""
    torch.manual_seed(0)
    start, gradients = torch.randn(32, 64), [torch.randn(32, 64) for _ in range(3)]
    ends = []
    for kind in ("here", "torch"):
        matrix = start.clone().requires_grad_()
        optimizer = (
            Muon([matrix], 0.1, 0.01)
            if kind == "here"
            else torch.optim.Muon([matrix], 0.1, 0.01, MOMENTUM, adjust_lr_fn="match_rms_adamw")
        )
        for gradient in gradients:
            matrix.grad = gradient.clone()
            optimizer.step()
        ends.append(matrix.detach() - start)
    here, there = ends
    assert torch.linalg.norm(here - there) < 0.05 * torch.linalg.norm(there)
    assert 0.5 < here.std() / (3 * 0.1 * RMS) < 1.5
