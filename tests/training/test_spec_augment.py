"""asr.training.spec_augment: other vocal tracts, and masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asr.audio.features import FrontendConfig, build
from asr.training.recipe import AugmentConfig
from asr.training.spec_augment import mask, stretch, warp

CONFIG = FrontendConfig()


def tone(hertz: float) -> torch.Tensor:
    """Its log-mel frames (1, T, bands)."""
    samples = np.sin(2 * np.pi * hertz * np.arange(8000) / CONFIG.sample_rate)
    return torch.from_numpy(build(CONFIG)(samples))[None]


@pytest.mark.parametrize("hertz", [300, 1000, 3000])
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_shorter_vocal_tract_moves_a_tone_up(hertz: float, factor: float) -> None:
    moved = warp(tone(hertz), CONFIG, torch.tensor([factor]))[0].mean(0)
    assert abs(int(moved.argmax()) - int(tone(hertz / factor)[0].mean(0).argmax())) <= 1
    assert int(moved.argmax()) != int(tone(hertz)[0].mean(0).argmax())


def test_each_utterance_has_its_own_factor_and_one_changes_nothing() -> None:
    torch.manual_seed(0)
    mel = torch.randn(2, 7, CONFIG.mels)
    moved = warp(mel, CONFIG, torch.tensor([1.0, 1.05]))
    assert torch.allclose(moved[0], mel[0], atol=1e-4)
    assert (moved[1] - mel[1]).abs().max() > 0.5
    assert torch.allclose(moved[1], warp(mel[1:], CONFIG, torch.tensor([1.05]))[0])


def test_masks_become_the_mean_and_keep_to_their_widths() -> None:
    torch.manual_seed(0)
    mel = torch.randn(50, 100, CONFIG.mels)
    c = AugmentConfig(time_masks=1, time_mask=10, band_masks=1, band_mask=5)
    hidden = (mask(mel, c, 1.0) - mel.mean(dim=(1, 2), keepdim=True)).abs() < 1e-6
    frames, bands = hidden.all(2).sum(1), hidden.all(1).sum(1)
    assert 0 < frames.max() <= 10 and 0 < bands.max() <= 5
    assert torch.equal(hidden, hidden.all(2, keepdim=True) | hidden.all(1, keepdim=True))


def test_strength_scales_both_and_cepstra_are_not_moved() -> None:
    torch.manual_seed(0)
    mel = torch.randn(4, 50, CONFIG.mels)
    c = AugmentConfig(vocal_tract=0.2)
    assert torch.allclose(mask(stretch(mel, CONFIG, c, 0.0), c, 0.0), mel, atol=1e-4)
    assert (mask(stretch(mel, CONFIG, c, 1.0), c, 1.0) - mel).abs().max() > 0.5
    unmasked = AugmentConfig(vocal_tract=0.2, time_masks=0, band_masks=0)
    cepstra = torch.randn(4, 50, 40)
    assert torch.allclose(stretch(cepstra, FrontendConfig(kind="mfcc"), unmasked, 1.0), cepstra, atol=1e-5)
