"""What training does to mel frames so that no voice and no stretch of one can be learned by heart."""

from __future__ import annotations

import torch
import torchaudio.functional as AF
from torch import Tensor

from asr.audio.features import FrontendConfig
from asr.training.recipe import AugmentConfig

KNEE = 0.63  # of the highest frequency: what lies below is stretched evenly, what lies above takes up the rest


def stretch(mel: Tensor, frontend: FrontendConfig, c: AugmentConfig, strength: float) -> Tensor:
    """(B, T, bands) → the same of other vocal tracts; `strength` from 0 to 1 of what the recipe says."""
    if c.vocal_tract and frontend.kind != "mfcc":  # cepstra have no frequencies to move
        factors = 1 + c.vocal_tract * strength * (2 * torch.rand(len(mel), device=mel.device) - 1)
        mel = warp(mel, frontend, factors)
    return mel


def warp(mel: Tensor, frontend: FrontendConfig, factors: Tensor) -> Tensor:
    """Vocal-tract-length perturbation (Jaitly & Hinton 2013): each utterance's frequencies divided by its factor (B,).

    A band takes what its center's warped frequency had, interpolated between the two nearest bands.
    """
    low, high = (torch.tensor(f).div(700).log1p() for f in (frontend.f_min, frontend.f_max))  # HTK's mel, unscaled
    width = (high - low) / (frontend.mels + 1)
    centers = (low + width * torch.arange(1, frontend.mels + 1)).expm1() * 700
    centers, factor, top = centers.to(mel.device), factors[:, None], frontend.f_max
    knee = KNEE * top * factor.clamp(max=1.0) / factor
    slope = (top - knee * factor) / (top - knee)
    warped = torch.where(centers <= knee, centers * factor, top - slope * (top - centers))
    place = (((warped / 700).log1p() - low) / width - 1).clamp(0, frontend.mels - 1)
    below = place.floor().clamp(max=frontend.mels - 2)
    index = below.long()[:, None].expand_as(mel)
    return torch.lerp(mel.gather(2, index), mel.gather(2, index + 1), (place - below)[:, None])


def mask(mel: Tensor, c: AugmentConfig, strength: float) -> Tensor:
    """SpecAugment (Park et al. 2019): bands and stretches of time become the row's mean, padding included."""
    x = mel.transpose(1, 2)[:, None]  # (B, 1, bands, T)
    mean = x.mean(dim=(2, 3), keepdim=True)
    x = x - mean
    for axis, count, width in ((2, c.band_masks, c.band_mask), (3, c.time_masks, c.time_mask)):
        for _ in range(count):
            if width * strength >= 1:
                x = AF.mask_along_axis_iid(x, round(width * strength), 0.0, axis)
    return (x + mean)[:, 0].transpose(1, 2)
