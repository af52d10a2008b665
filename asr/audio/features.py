"""Samples to mel frames, in one go or as they come.

Every frontend starts from the same mel power spectrogram (torchaudio; HTK scale, no centring: a frame every `hop`
samples as long as `n_fft` samples are there, the window in its middle) and differs in how it is compressed:

- `LogMel`: natural logarithm.
- `MFCC`: type-II cosine transform of the log-mel (Davis & Mermelstein 1980).
- `PCEN`: per-channel energy normalization (Wang et al. 2017, arXiv 1607.05666), whose smoother is carried along.

Samples after the last whole frame make no frame. Mean and variance are the acoustic model's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from asr.schema import check_range

Smoother = np.ndarray | None


@dataclass(frozen=True)
class FrontendConfig:
    """What a checkpoint says of its frontend. Lengths in samples, frequencies in Hz."""

    kind: str = "log_mel"  # log_mel | mfcc | pcen
    sample_rate: int = 16_000
    n_fft: int = 512
    window: int = 400
    hop: int = 160
    mels: int = 80
    f_min: float = 20.0
    f_max: float = 7600.0
    log_floor: float = 1e-6  # added to the mel power before the logarithm
    coefficients: int = 40  # of the MFCC
    pcen_gain: float = 0.98
    pcen_bias: float = 2.0
    pcen_power: float = 0.5
    pcen_time_constant: float = 0.4  # seconds
    pcen_floor: float = 1e-6

    def __post_init__(self) -> None:
        check_range(self, 1, 512, "mels", "coefficients")
        check_range(self, 1, 16_384, "n_fft", "hop")
        check_range(self, 1, math.inf, "sample_rate")
        if not 0 < self.window <= self.n_fft:
            raise ValueError("window must be from 1 to n_fft")


class Frontend(nn.Module):
    """Base of the frontends: mel power spectrogram, then `compress`."""

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = torchaudio.transforms.MelSpectrogram(
            config.sample_rate,
            config.n_fft,
            config.window,
            config.hop,
            config.f_min,
            config.f_max,
            n_mels=config.mels,
            power=2.0,
            center=False,
            norm=None,
            mel_scale="htk",
        )
        left = (config.n_fft - config.window) // 2
        window = F.pad(self.mel.spectrogram.window, (left, config.n_fft - config.window - left))
        self.register_buffer("window", window, persistent=False)

    @property
    def bands(self) -> int:
        """Values in one mel frame."""
        return self.config.mels

    @property
    def seconds_per_frame(self) -> float:
        return self.config.hop / self.config.sample_rate

    def frames(self, samples: int) -> int:
        """How many mel frames so many samples make."""
        return max(0, (samples - self.config.n_fft) // self.config.hop + 1)

    def forward(self, samples: Tensor) -> Tensor:
        """(samples,) → (mel frames, bands); the whole signal at once."""
        return self.extract(samples, None)[0]

    def batch(self, samples: Tensor) -> Tensor:
        """(B, samples) → (B, mel frames, bands), for utterances padded to one length."""
        return torch.stack([self(each) for each in samples])

    def extract(self, samples: Tensor, state: Smoother) -> tuple[Tensor, Smoother]:
        """Frames of these samples, and the compression's state after them."""
        if samples.numel() < self.config.n_fft:
            return samples.new_zeros(0, self.bands), state
        return self.compress(self.power(samples), state)

    def power(self, samples: Tensor) -> Tensor:
        """(…, samples) → mel power (…, mel frames, mels): what `self.mel` computes, in a third of the time for the
        short blocks of live sound."""
        frames = samples.unfold(-1, self.config.n_fft, self.config.hop)
        spectrum = torch.fft.rfft(frames * self.get_buffer("window"))
        return (spectrum.real.square() + spectrum.imag.square()) @ self.mel.mel_scale.fb

    def compress(self, power: Tensor, state: Smoother) -> tuple[Tensor, Smoother]:
        """Mel power (mel frames, mels) → features (mel frames, bands), and the state to go on from."""
        raise NotImplementedError

    def stream(self) -> FeatureStream:
        return FeatureStream(self)


class LogMel(Frontend):
    def batch(self, samples: Tensor) -> Tensor:
        return torch.log(self.power(samples) + self.config.log_floor)

    def compress(self, power: Tensor, state: Smoother) -> tuple[Tensor, Smoother]:
        return torch.log(power + self.config.log_floor), state


class MFCC(Frontend):
    def __init__(self, config: FrontendConfig) -> None:
        super().__init__(config)
        cosines = torchaudio.functional.create_dct(config.coefficients, config.mels, norm="ortho")
        self.register_buffer("cosines", cosines, persistent=False)

    @property
    def bands(self) -> int:
        return self.config.coefficients

    def compress(self, power: Tensor, state: Smoother) -> tuple[Tensor, Smoother]:
        return torch.log(power + self.config.log_floor) @ self.get_buffer("cosines"), state


class PCEN(Frontend):
    """The smoother starts at the first frame's energy, so that the first word is not over-amplified."""

    def compress(self, power: Tensor, state: Smoother) -> tuple[Tensor, Smoother]:
        from scipy.signal import lfilter  # takes most of a second, which other frontends need not wait for

        c = self.config
        frames = c.pcen_time_constant * c.sample_rate / c.hop
        smoothing = (np.sqrt(1 + 4 * frames**2) - 1) / (2 * frames**2)
        energy = power.double().cpu().numpy() * 2.0**31  # the scale of 32-bit samples, which the constants are for
        if state is None:
            state = (1 - smoothing) * energy[:1]
        smooth, state = lfilter([smoothing], [1, smoothing - 1], energy, axis=0, zi=state)
        gain = np.exp(-c.pcen_gain * (np.log(c.pcen_floor) + np.log1p(smooth / c.pcen_floor)))
        out = c.pcen_bias**c.pcen_power * np.expm1(c.pcen_power * np.log1p(energy * gain / c.pcen_bias))
        return torch.from_numpy(out).to(power), state


FRONTENDS: dict[str, type[Frontend]] = {"log_mel": LogMel, "mfcc": MFCC, "pcen": PCEN}


def build(config: FrontendConfig) -> Frontend:
    if config.kind not in FRONTENDS:
        raise ValueError(f"unknown frontend '{config.kind}': choose one of {', '.join(FRONTENDS)}")
    return FRONTENDS[config.kind](config)


class FeatureStream:
    """One speaker's frontend: the samples that no frame has used up yet, and the compression's state.

    Gives the frames that `Frontend.forward` gives for the whole signal, however the samples are cut.
    """

    def __init__(self, frontend: Frontend) -> None:
        self.frontend = frontend
        self.tail = np.zeros(0, dtype=np.float32)
        self.state: Smoother = None

    def accept(self, samples: np.ndarray[Any, Any], least: int = 1) -> Tensor:
        """(n,) float32 at the frontend's rate → (mel frames, bands); none until `least` are ready, since many at once
        are cheaper."""
        self.tail = np.concatenate([self.tail, samples])
        count = self.frontend.frames(len(self.tail))
        if count < max(1, least):
            return torch.zeros(0, self.frontend.bands)
        features, self.state = self.frontend.extract(torch.from_numpy(self.tail), self.state)
        self.tail = self.tail[count * self.frontend.config.hop :].copy()
        return features

    def missing(self, frames: int) -> int:
        """Samples without which there will not be so many more mel frames."""
        c = self.frontend.config
        return max(0, (frames - 1) * c.hop + c.n_fft - len(self.tail))
