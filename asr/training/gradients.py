"""How strong gradients are, by layer and by how far back in time they reach: do they vanish or explode?

Bengio, Simard & Frasconi 1994 ("Learning long-term dependencies with gradient descent is difficult") and Pascanu,
Mikolov & Bengio 2013 (arXiv 1211.5063) say why; these two functions show it for a model at hand.
"""

from __future__ import annotations

import torch
from torch import Tensor

from asr.model.acoustic import AcousticModel


def by_layer(model: AcousticModel) -> dict[str, float]:
    """The norm of the gradient that the last backward pass left in the stem, each layer and the heads."""
    parts = {
        "stem": model.stem,
        **{f"layer {i}": layer for i, layer in enumerate(model.encoder(), 1)},
        "heads": model.heads,
    }
    return {
        name: float(
            torch.stack(
                [each.grad.norm() for each in part.parameters() if each.grad is not None] or [torch.zeros(())]
            ).norm()
        )
        for name, part in parts.items()
    }


def by_distance(model: AcousticModel, mel: Tensor, lengths: Tensor) -> Tensor:
    """How much the emissions of each utterance's middle frame depend on the stem's output so many frames away.

    `mel` (B, T, bands), `lengths` (B,) mel frames → (frames,), index 0 the frame itself: the norm of the gradient of
    the most likely tokens' log-probabilities, mean over utterances and both directions, relative to index 0. NaN where
    no utterance is that long.
    """
    with torch.enable_grad():
        x = model.embed(mel, lengths).detach().requires_grad_()
        frames = model.frame_lengths(lengths)
        y = x
        for layer in model.encoder():
            y = layer(y, frames)
        rows = torch.arange(len(mel), device=mel.device)
        middle = frames // 2
        likely = torch.stack([each[rows, middle].max(-1).values.sum() for each in model.emissions(y).values()]).sum()
        norms = torch.autograd.grad(likely, x)[0].float().norm(dim=-1)  # (B, F)
    distance = (torch.arange(norms.shape[1], device=mel.device) - middle[:, None]).abs()
    heard = torch.arange(norms.shape[1], device=mel.device) < frames[:, None]
    reach = int(distance[heard].max()) + 1
    total = torch.zeros(reach, device=mel.device).index_add_(0, distance[heard], norms[heard])
    count = torch.zeros(reach, device=mel.device).index_add_(0, distance[heard], torch.ones_like(norms[heard]))
    mean = total / count
    return (mean / mean[0]).cpu()
