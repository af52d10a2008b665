"""Gradients by layer and by distance in time."""

import pytest
import torch

from asr.model.acoustic import AcousticModel
from asr.model.streaming import ModelConfig
from asr.training.gradients import by_distance, by_layer

LENGTHS = torch.tensor([160, 120])


def model(cell: str = "rnn", layers: int = 1) -> AcousticModel:
    torch.manual_seed(0)
    return AcousticModel(ModelConfig(cell, 16, layers, 4), 20, {"characters": 6})


@pytest.fixture
def mel() -> torch.Tensor:
    return torch.randn(2, 160, 20, generator=torch.Generator().manual_seed(1))


def remember(each: AcousticModel, share: float) -> None:
    """Every unit keeps `share` of itself from frame to frame, and listens to its input too quietly to saturate."""
    with torch.no_grad():
        for name, value in each.named_parameters():
            if "weight_hh" in name:
                value.copy_(share * torch.eye(16))
            elif "weight_ih" in name:
                value.mul_(0.01)
            elif "bias" in name and "rnn" in name:
                value.zero_()


def test_by_layer_is_the_norm_of_each_part(mel: torch.Tensor) -> None:
    each = model("lstm", 3)
    each(mel, LENGTHS)[0]["characters"][..., 2].sum().backward()
    norms = by_layer(each)
    assert list(norms) == ["stem", "layer 1", "layer 2", "layer 3", "heads"]
    for name, part in (("layer 2", each.layers[1]), ("heads", each.heads)):
        expected = torch.cat([value.grad.flatten() for value in part.parameters()]).norm()
        assert norms[name] == pytest.approx(float(expected), rel=1e-5)
    each.zero_grad()
    assert set(by_layer(each).values()) == {0.0}


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_frame_depends_on_itself_most(mel: torch.Tensor, cell: str) -> None:
    reach = by_distance(model(cell, 2), mel, LENGTHS)
    assert reach.shape == (21,) and reach[0] == 1.0  # the middle of 40 frames is as far as 20 from their ends
    assert (reach[1:] < 1).all() and (reach > 0).all()


def test_a_cell_that_forgets_has_a_vanishing_gradient(mel: torch.Tensor) -> None:
    each = model()
    remember(each, 0.5)
    reach = by_distance(each, mel, LENGTHS)
    ratios = reach[2:12] / reach[1:11]
    torch.testing.assert_close(ratios, torch.full((10,), 0.5), atol=0.1, rtol=0)


def test_a_cell_that_remembers_reaches_far(mel: torch.Tensor) -> None:
    each = model()
    remember(each, 1.0)
    reach = by_distance(each, mel, LENGTHS)
    assert reach[18] > 0.7 * reach[1]


def test_without_recurrence_only_the_frame_itself_counts(mel: torch.Tensor) -> None:
    each = model()
    with torch.no_grad():
        for layer in each.encoder():
            layer.proj.weight.zero_()
    assert not by_distance(each, mel, LENGTHS)[1:].any()


def test_it_works_without_gradients_around_it_and_leaves_none(mel: torch.Tensor) -> None:
    each = model().requires_grad_(False)
    with torch.no_grad():
        assert by_distance(each, mel, LENGTHS)[0] == 1.0
    assert all(value.grad is None for value in each.parameters())
