"""The denominator of a conditional random field with CTC's topology (Xiang & Ou 2019, arXiv 1902.01656).

CTC alone makes the right sequence likely. Adding the logarithm of the sum over *all* sequences, each weighted by an
n-gram over tokens, makes the others unlikely too: what a decoder with a language model will have to choose between.
The sum is exact: a forward pass over the n-gram's histories, dense, in plain PyTorch.

A history is the last `order − 1` tokens. Index 0, CTC's blank, is never part of a sequence, so it stands for the
sequence's start in a history, and for its end as the token that comes next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

MIN_PROBABILITY = 1e-30  # probability that a sum is not smaller than
DISCOUNT = 5.0  # occurrences that the shorter history's estimate counts as (Dirichlet smoothing; MacKay & Peto 1995)


def estimate(sequences: Iterable[Sequence[int]], tokens: int, order: int) -> Tensor:
    """The n-gram's probabilities (V, …, V, V): [h₁, …, hₙ₋₁, next], interpolated with those of shorter histories."""
    counts = [torch.zeros((tokens,) * n, dtype=torch.float64) for n in range(1, order + 1)]
    for sequence in sequences:
        padded = [0] * (order - 1) + [*sequence, 0]
        for end in range(order - 1, len(padded)):
            for n, count in enumerate(counts, 1):
                count[tuple(padded[end - n + 1 : end + 1])] += 1
    p = torch.full((tokens,), 1 / tokens, dtype=torch.float64)
    for count in counts:
        p = (count + DISCOUNT * p) / (count.sum(-1, keepdim=True) + DISCOUNT)
    return p.float()


class Denominator(nn.Module):
    """log Σ over sequences of n-gram probability × Σ over CTC paths of the emissions' probabilities.

    A state of the sum is a history, and whether the newest frame is a blank: the first half of the states, or the
    history's last token: the second half.
    """

    moves: Tensor  # (states, states), how much of each state's mass goes where before a frame's emission is heard
    ends: Tensor  # (states,), the n-gram's probability of ending there
    heard: Tensor  # (states,), the token that the newest frame is

    def __init__(self, ngram: Tensor) -> None:
        super().__init__()
        tokens, histories = ngram.shape[-1], ngram[..., 0].numel()
        history = torch.arange(histories)
        last = history % tokens
        go = ngram.reshape(histories, tokens).clone()
        go[:, 0] = 0.0  # the end comes after the last frame, not at one
        other = go.clone()
        other[history, last] = 0.0  # without a blank between them, a token repeated is the same one going on
        after = (history[:, None] * tokens + torch.arange(tokens)) % histories  # history once a token has followed
        stay = torch.eye(histories)
        moves = torch.cat(
            [
                torch.cat([stay, torch.zeros_like(stay).scatter_add(1, after, go)], dim=1),
                torch.cat([stay, stay.scatter_add(1, after, other)], dim=1),
            ]
        )
        self.register_buffer("moves", moves, persistent=False)
        self.register_buffer("ends", ngram[..., 0].flatten().repeat(2), persistent=False)
        self.register_buffer("heard", torch.cat([torch.zeros_like(last), last]), persistent=False)

    def forward(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """`emissions` (B, F, V) log-probabilities, `lengths` (B,) frames → (B,), natural logarithm."""
        with torch.autocast(emissions.device.type, enabled=False):  # products of probabilities need every bit
            frames = emissions.float().exp()[:, :, self.heard]
            mass = torch.zeros_like(frames[:, 0])
            mass[:, 0] = 1.0
            shortest, scales = int(lengths.min()), []
            for number, frame in enumerate(frames.unbind(1)):
                new = mass @ self.moves * frame
                scale = new.sum(1, keepdim=True).clamp(min=MIN_PROBABILITY)
                new = new / scale
                if number >= shortest:
                    inside = number < lengths[:, None]
                    new, scale = torch.where(inside, new, mass), torch.where(inside, scale, 1.0)
                mass = new
                scales.append(scale)
            return torch.cat(scales, dim=1).log().sum(1) + (mass @ self.ends).clamp(min=MIN_PROBABILITY).log()
