"""Samples to mel frames, in one go or as they come: an FFT and a matrix, in NumPy.

Every frontend starts from the same mel power spectrogram (HTK scale, no centring: a frame every `hop` samples as long
as `n_fft` samples are there, the window in its middle) and differs in how it is compressed:

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

from asr.schema import check_range

Array = np.ndarray[Any, Any]

SLAB_FRAMES = 96  # that are transformed at a time: what the processor's cache holds
SMOOTHED_FRAMES = 64  # whose energy is smoothed at a time


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
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError("f_min and f_max must be in order, from 0 to half of sample_rate")


class Frontend:
    """Base of the frontends: mel power spectrogram, then `compress`. All arrays are float32."""

    def __init__(self, config: FrontendConfig) -> None:
        self.config = config
        self.window = hann(config)
        filters = mel_filters(config)
        used = np.flatnonzero(filters.any(axis=1))
        self.bins = slice(used[0], used[-1] + 1) if len(used) else slice(0, 1)  # of the spectrum; the rest counts 0
        self.filters = np.ascontiguousarray(filters[self.bins], np.float32)

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

    def __call__(self, samples: Array) -> Array:
        """(samples,) → (mel frames, bands); the whole signal at once."""
        return self.extract(samples, None)[0]

    def extract(self, samples: Array, state: Array | None) -> tuple[Array, Array | None]:
        """Frames of these samples, and the compression's state after them."""
        power = self.power(np.ascontiguousarray(samples, np.float32))
        return self.compress(power, state) if len(power) else (np.zeros((0, self.bands), np.float32), state)

    def power(self, samples: Array) -> Array:
        """(samples,) → mel power (mel frames, mels)."""
        c = self.config
        total = self.frames(len(samples))
        power = np.empty((total, c.mels), np.float32)
        for first in range(0, total, SLAB_FRAMES):
            count = min(SLAB_FRAMES, total - first)
            strides = (samples.itemsize * c.hop, samples.itemsize)
            frames = np.ndarray((count, c.n_fft), np.float32, samples, first * strides[0], strides)  # a view
            parts = np.fft.rfft(frames * self.window)[:, self.bins].view(np.float32)  # real and imaginary in turn
            squares = np.square(parts)
            power[first : first + count] = (squares[:, ::2] + squares[:, 1::2]) @ self.filters
        return power

    def compress(self, power: Array, state: Array | None) -> tuple[Array, Array | None]:
        """Mel power (mel frames, mels) → features (mel frames, bands), and the state to go on from."""
        raise NotImplementedError

    def log(self, power: Array) -> Array:
        """In place."""
        power += np.float32(self.config.log_floor)
        return np.log(power, out=power)

    def stream(self) -> FeatureStream:
        return FeatureStream(self)


class LogMel(Frontend):
    def compress(self, power: Array, state: Array | None) -> tuple[Array, Array | None]:
        return self.log(power), state


class MFCC(Frontend):
    def __init__(self, config: FrontendConfig) -> None:
        super().__init__(config)
        self.cosines = cosines(config.mels, config.coefficients)

    @property
    def bands(self) -> int:
        return self.config.coefficients

    def compress(self, power: Array, state: Array | None) -> tuple[Array, Array | None]:
        return self.log(power) @ self.cosines, state


class PCEN(Frontend):
    """The state is the smoothed energy of the last frame, (mels,) float64. The smoother starts at the first frame's
    energy, so that the first word is not over-amplified."""

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__(config)
        frames = config.pcen_time_constant * config.sample_rate / config.hop
        new = (np.sqrt(1 + 4 * frames**2) - 1) / (2 * frames**2)  # weight of a frame's energy in the smoothed one
        age = np.arange(SMOOTHED_FRAMES)[:, None] - np.arange(SMOOTHED_FRAMES)
        self.weights = np.where(age >= 0, new * (1 - new) ** np.maximum(age, 0), 0.0)  # frame by earlier frame
        self.decay = (1 - new) ** np.arange(1, SMOOTHED_FRAMES + 1)[:, None]  # of what was before

    def compress(self, power: Array, state: Array | None) -> tuple[Array, Array | None]:
        c = self.config
        energy = power * 2.0**31  # the scale of 32-bit samples, which the constants are for
        smooth, state = self.smooth(energy, energy[0] if state is None else state)
        gain = np.exp(-c.pcen_gain * (np.log(c.pcen_floor) + np.log1p(smooth / c.pcen_floor)))
        out = c.pcen_bias**c.pcen_power * np.expm1(c.pcen_power * np.log1p(energy * gain / c.pcen_bias))
        return out.astype(np.float32), state

    def smooth(self, energy: Array, last: Array) -> tuple[Array, Array]:
        """Energy (mel frames, mels) through a recursive filter of first order, as products with a matrix."""
        smooth = np.empty_like(energy)
        for first in range(0, len(energy), SMOOTHED_FRAMES):
            part = energy[first : first + SMOOTHED_FRAMES]
            n = len(part)
            smooth[first : first + n] = self.weights[:n, :n] @ part + self.decay[:n] * last
            last = smooth[first + n - 1].copy()
        return smooth, last


FRONTENDS: dict[str, type[Frontend]] = {"log_mel": LogMel, "mfcc": MFCC, "pcen": PCEN}


def build(config: FrontendConfig) -> Frontend:
    if config.kind not in FRONTENDS:
        raise ValueError(f"unknown frontend '{config.kind}': choose one of {', '.join(FRONTENDS)}")
    return FRONTENDS[config.kind](config)


def hann(config: FrontendConfig) -> Array:
    """The periodic Hann window in the middle of (n_fft,) zeros."""
    window = np.zeros(config.n_fft, np.float32)
    left = (config.n_fft - config.window) // 2
    window[left : left + config.window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.window) / config.window)
    return window


def mel_filters(config: FrontendConfig) -> Array:
    """Triangles of height 1, equally wide on the HTK scale: (n_fft // 2 + 1 bins of the spectrum, mels) float64."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (config.f_min, config.f_max))
    corners = 700 * (10 ** (np.linspace(low, high, config.mels + 2) / 2595) - 1)
    bins = np.linspace(0, config.sample_rate // 2, config.n_fft // 2 + 1)[:, None]
    rise = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    fall = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    return np.maximum(0, np.minimum(rise, fall))


def cosines(mels: int, coefficients: int) -> Array:
    """The orthonormal type-II cosine transform, (mels, coefficients)."""
    matrix = np.cos(np.pi / mels * (np.arange(mels)[:, None] + 0.5) * np.arange(coefficients)) * math.sqrt(2 / mels)
    matrix[:, 0] /= math.sqrt(2)
    return matrix.astype(np.float32)


class FeatureStream:
    """One speaker's frontend: the samples that no frame has used up yet, and the compression's state.

    Gives the frames that the frontend gives for the whole signal, however the samples are cut.
    """

    def __init__(self, frontend: Frontend) -> None:
        self.frontend = frontend
        self.blocks: list[Array] = []
        self.samples = 0  # in them
        self.state: Array | None = None

    def accept(self, samples: Array, least: int = 1) -> Array:
        """(n,) float32 at the frontend's rate → (mel frames, bands); none until `least` are ready, since many at once
        are cheaper."""
        self.samples += len(samples)
        count = self.frontend.frames(self.samples)
        if count < max(1, least):
            self.blocks.append(samples.copy())  # the caller's memory is the caller's
            return np.zeros((0, self.frontend.bands), np.float32)
        waiting = np.concatenate([*self.blocks, samples])
        features, self.state = self.frontend.extract(waiting, self.state)
        rest = waiting[count * self.frontend.config.hop :].copy()
        self.blocks, self.samples = [rest], len(rest)
        return features

    def missing(self, frames: int) -> int:
        """Samples without which there will not be so many more mel frames."""
        c = self.frontend.config
        return max(0, (frames - 1) * c.hop + c.n_fft - self.samples)
