"""What training minimizes."""

import pytest
import torch

from asr.model.acoustic import AcousticModel
from asr.model.streaming import ModelConfig
from asr.training.crf import Denominator, estimate
from asr.training.objective import Objective, ctc, disagreement, pack

TARGETS = [{"characters": [2, 3, 3, 1], "phonemes": [1, 2]}, {"characters": [4, 1], "phonemes": [3]}]
LENGTHS = torch.tensor([90, 61])


def objective(middle: float = 0.3, crf: float = 0.0) -> Objective:
    torch.manual_seed(0)
    model = AcousticModel(ModelConfig(hidden=12, layers=4, stem_channels=4), 20, {"characters": 6, "phonemes": 5})
    return Objective(model, middle, crf, "phonemes", Denominator(estimate([[1, 2], [3]], 5, 2)) if crf else None).eval()


@pytest.fixture
def mel() -> torch.Tensor:
    return torch.randn(2, 90, 20, generator=torch.Generator().manual_seed(1))


def test_a_chunk_as_long_as_the_batch_is_full_context(mel: torch.Tensor) -> None:
    each = objective()
    targets = pack(TARGETS, mel.device)
    full, emissions, frames = each(mel, LENGTHS, targets, None)
    chunked, *_ = each(mel, LENGTHS, targets, (23, 4))  # frames in the batch
    assert frames.tolist() == [23, 16] and set(emissions) == {"characters", "phonemes"}
    assert set(full) == {"characters", "phonemes", "middle characters", "middle phonemes"}
    torch.testing.assert_close(chunked, full, rtol=1e-4, atol=1e-4)
    limited, *_ = each(mel, LENGTHS, targets, (8, 4))
    assert any(not torch.isclose(limited[name], full[name], rtol=1e-4) for name in full)


def test_losses_are_sums_over_utterances(mel: torch.Tensor) -> None:
    each = objective(crf=1.0)
    both, *_ = each(mel, LENGTHS, pack(TARGETS, mel.device), None)
    first, *_ = each(mel[:1], LENGTHS[:1], pack(TARGETS[:1], mel.device), None)
    second, *_ = each(mel[1:, :61], LENGTHS[1:], pack(TARGETS[1:], mel.device), None)
    torch.testing.assert_close(both, {name: first[name] + second[name] for name in first}, rtol=1e-4, atol=1e-4)


def test_the_middle_loss_teaches_only_the_lower_half(mel: torch.Tensor) -> None:
    each = objective(middle=0.5)
    losses, *_ = each(mel, LENGTHS, pack(TARGETS, mel.device), None)
    losses["middle characters"].backward()
    taught = {name for name, value in each.named_parameters() if value.grad is not None and value.grad.any()}
    assert {name.split(".")[2] for name in taught if name.startswith("model.layers")} == {"0", "1"}
    assert any(name.startswith("model.stem") for name in taught) and "middle_heads.characters.weight" in taught
    assert not any(name.startswith(("model.heads", "model.norm")) for name in taught)
    double, *_ = objective(middle=1.0)(mel, LENGTHS, pack(TARGETS, mel.device), None)
    torch.testing.assert_close(double["middle characters"], 2 * losses["middle characters"])


def test_without_the_middle_it_costs_nothing(mel: torch.Tensor) -> None:
    each = objective(middle=0.0)
    assert set(each(mel, LENGTHS, pack(TARGETS, mel.device), None)[0]) == {"characters", "phonemes"}
    assert all(name.startswith("model.") for name, _ in each.named_parameters())


def test_a_row_without_text_wants_blanks(mel: torch.Tensor) -> None:
    targets = pack([TARGETS[0], {"characters": [], "phonemes": []}], mel.device)
    each = objective()
    losses, emissions, frames = each(mel, LENGTHS, targets, None)
    blanks = -emissions["characters"][1, : frames[1], 0].sum()
    alone = ctc(emissions["characters"][:1], frames[:1], torch.tensor(TARGETS[0]["characters"]), torch.tensor([4]))
    torch.testing.assert_close(losses["characters"], alone + blanks)
    sum(losses.values()).backward()
    assert all(value.grad.isfinite().all() for value in each.parameters())


def test_more_tokens_than_frames_count_as_nothing() -> None:
    emissions = torch.randn(2, 3, 6).log_softmax(-1).requires_grad_()
    loss = ctc(emissions, torch.tensor([3, 3]), torch.tensor([1, 2, 3, 4, 5]), torch.tensor([4, 1]))
    torch.testing.assert_close(loss, ctc(emissions[1:], torch.tensor([3]), torch.tensor([5]), torch.tensor([1])))
    loss.backward()
    assert emissions.grad.isfinite().all() and not emissions.grad[0].any()


def test_the_crf_is_the_weighted_denominator(mel: torch.Tensor) -> None:
    each = objective(crf=0.25)
    losses, emissions, frames = each(mel, LENGTHS, pack(TARGETS, mel.device), None)
    torch.testing.assert_close(losses["crf"], 0.25 * each.denominator(emissions["phonemes"], frames).sum())
    assert losses["phonemes"] + losses["crf"] / 0.25 > 0  # the right sequence is one of all


def test_two_views_must_agree(mel: torch.Tensor) -> None:
    """Views that are equal cost nothing and leave the other losses' mean as it is; each view is pulled toward the
    other as it stands."""
    each = objective(crf=1.0)
    alone, *_ = each(mel, LENGTHS, pack(TARGETS, mel.device), None)
    each.consistency = 0.5
    equal, *_ = each(torch.cat([mel, mel]), LENGTHS.repeat(2), pack(TARGETS * 2, mel.device), None)
    for name in ("characters", "phonemes"):
        assert float(equal.pop(f"consistency {name}")) == pytest.approx(0.0, abs=1e-4)
    torch.testing.assert_close(equal, alone, rtol=1e-4, atol=1e-4)

    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    p = logits.log_softmax(-1)
    loss = disagreement(p, torch.tensor([2, 2]))
    a, b = p.detach()[:, :2].exp()
    expected = 0.5 * ((a * (a / b).log()).sum() + (b * (b / a).log()).sum())
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    loss.backward()
    assert not logits.grad[:, 2].any()  # behind the utterances' ends
    torch.testing.assert_close(logits.grad[0, :2], 0.5 * (a - b), rtol=1e-4, atol=1e-5)
