"""The CTC-CRF's denominator against an enumeration of every path."""

import math
from itertools import groupby, product

import pytest
import torch
from torch import Tensor

from asr.training.crf import Denominator, estimate

SEQUENCES = [[1, 2, 1], [2, 2], [1], [3, 1, 1, 2], []]


def enumerated(ngram: Tensor, emissions: Tensor) -> float:
    """log Σ over all CTC paths of (frames, V) emissions, each weighted by the n-gram of its tokens."""
    order, total = ngram.ndim, 0.0
    for path in product(range(emissions.shape[1]), repeat=len(emissions)):
        tokens = [token for token, _ in groupby(path) if token]
        history = [0] * (order - 1) + tokens + [0]
        weight = math.prod(float(ngram[tuple(history[i - order + 1 : i + 1])]) for i in range(order - 1, len(history)))
        total += weight * math.exp(sum(float(emissions[frame, token]) for frame, token in enumerate(path)))
    return math.log(total)


@pytest.mark.parametrize("order", [2, 3])
def test_equals_an_enumeration_of_all_paths(order: int) -> None:
    torch.manual_seed(order)
    ngram = estimate(SEQUENCES, 4, order)
    emissions = (2 * torch.randn(4, 5, 4)).log_softmax(-1)
    lengths = torch.tensor([5, 4, 2, 1])
    found = Denominator(ngram)(emissions, lengths)
    expected = [enumerated(ngram, each[:length]) for each, length in zip(emissions, lengths, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("order", [2, 3])
def test_the_ngram_sums_to_one(order: int) -> None:
    ngram = estimate(SEQUENCES, 4, order)
    assert ngram.shape == (4,) * order and (ngram > 0).all()
    torch.testing.assert_close(ngram.sum(-1), torch.ones((4,) * (order - 1)))


def test_the_ngram_follows_the_counts() -> None:
    bigram = estimate([[1, 2]] * 1000, 4, 2)
    assert bigram[0, 1] > 0.97 and bigram[1, 2] > 0.97 and bigram[2, 0] > 0.97
    trigram = estimate([[1, 2, 1, 3]] * 1000, 4, 3)  # what follows 1 depends on what was before it
    assert trigram[0, 1, 2] > 0.97 and trigram[2, 1, 3] > 0.97


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    denominator = Denominator(estimate(SEQUENCES, 4, 3))
    emissions = torch.randn(1, 20, 4).log_softmax(-1)
    padded = torch.cat([emissions, torch.full((1, 30, 4), -math.inf)], dim=1).requires_grad_()
    found = denominator(padded, torch.tensor([20]))
    torch.testing.assert_close(found, denominator(emissions, torch.tensor([20])))
    found.sum().backward()
    assert not padded.grad[:, 20:].any() and padded.grad[:, :20].isfinite().all()


def test_its_gradient_is_the_occupancy_of_each_frame() -> None:
    """∂ log Z / ∂ log p(token, frame) is the chance that a path goes through it: finite, and 1 over each frame."""
    torch.manual_seed(0)
    denominator = Denominator(estimate([list(range(1, 9))] * 3, 10, 2))
    emissions = (10 * torch.randn(2, 600, 10)).log_softmax(-1).requires_grad_()  # 24 s, and very sure of itself
    total = denominator(emissions, torch.tensor([600, 400]))
    assert total.isfinite().all() and (total < 0).all()
    total.sum().backward()
    occupancy = emissions.grad.sum(-1)
    torch.testing.assert_close(occupancy[0], torch.ones(600), atol=1e-3, rtol=0)
    torch.testing.assert_close(occupancy[1, :400], torch.ones(400), atol=1e-3, rtol=0)


def test_half_precision_around_it_costs_nothing() -> None:
    torch.manual_seed(0)
    denominator = Denominator(estimate(SEQUENCES, 4, 2))
    emissions, lengths = torch.randn(2, 50, 4).log_softmax(-1), torch.tensor([50, 40])
    with torch.autocast("cpu", torch.bfloat16):
        found = denominator(emissions, lengths)
    assert torch.equal(found, denominator(emissions, lengths))
