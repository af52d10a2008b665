from collections.abc import Callable

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.features import FrontendConfig, build

KINDS = ("log_mel", "mfcc", "pcen")
rng = np.random.default_rng(7)


def sound(samples: int) -> np.ndarray:
    """Noise whose loudness swells and fades, with exact silence in the middle: every frontend has something to do."""
    t = np.arange(samples) / 16_000
    x = 0.3 * rng.standard_normal(samples) * np.abs(np.sin(5 * t)) ** 3
    x[samples // 2 : samples // 2 + 2000] = 0
    return x.astype(np.float32)


SOUND = sound(16_000)
FRONTENDS = {kind: build(FrontendConfig(kind=kind)) for kind in KINDS}
WHOLE = {kind: frontend(SOUND) for kind, frontend in FRONTENDS.items()}


def streamed(kind: str, samples: np.ndarray, cuts: list[int]) -> np.ndarray:
    stream = FRONTENDS[kind].stream()
    return np.concatenate([stream.accept(block) for block in np.split(samples, cuts)])


def librosa_power(samples: np.ndarray) -> np.ndarray:
    """librosa's mel power spectrogram in double precision, (mels, frames)."""
    return librosa.feature.melspectrogram(
        y=samples.astype(np.float64),
        sr=16_000,
        htk=True,
        norm=None,
        center=False,
        power=2.0,
        win_length=400,
        n_fft=512,
        hop_length=160,
        n_mels=80,
        fmin=20,
        fmax=7600,
    )


def torchaudio_power(samples: np.ndarray) -> np.ndarray:
    """torchaudio's, whose filters in single precision are 6e-6 off."""
    torch.set_default_dtype(torch.float64)
    try:
        mel = torchaudio.transforms.MelSpectrogram(
            16_000, 512, 400, 160, 20.0, 7600.0, n_mels=80, power=2.0, center=False, norm=None, mel_scale="htk"
        )
        return mel(torch.from_numpy(samples).double()).numpy()
    finally:
        torch.set_default_dtype(torch.float32)


def reference(kind: str, power: np.ndarray) -> np.ndarray:
    """Mel power (mels, frames) compressed by librosa, (frames, bands)."""
    if kind == "log_mel":
        return np.log(power + 1e-6).T
    if kind == "mfcc":
        return librosa.feature.mfcc(S=np.log(power + 1e-6), n_mfcc=40).T
    energy = power * 2.0**31
    frames = 0.4 * 16_000 / 160
    b = (np.sqrt(1 + 4 * frames**2) - 1) / (2 * frames**2)
    return librosa.pcen(
        energy,
        sr=16_000,
        hop_length=160,
        gain=0.98,
        bias=2.0,
        power=0.5,
        time_constant=0.4,
        eps=1e-6,
        zi=(1 - b) * energy[:, :1],
    ).T


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(cuts=st.lists(st.integers(0, len(SOUND)), max_size=12))
def test_streaming_equals_batch_for_any_split(kind, cuts):
    np.testing.assert_allclose(streamed(kind, SOUND, sorted(cuts)), WHOLE[kind], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_streaming_equals_batch_one_sample_at_a_time(kind):
    got = streamed(kind, SOUND[:4000], list(range(1, 4000)))
    np.testing.assert_allclose(got, WHOLE[kind][: len(got)], rtol=1e-5, atol=1e-5)
    assert len(got) == (4000 - 512) // 160 + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_comes_with_its_last_sample_and_not_later(kind):
    stream = FRONTENDS[kind].stream()
    assert len(stream.accept(SOUND[:511])) == 0
    assert len(stream.accept(SOUND[511:512])) == 1
    assert len(stream.accept(SOUND[512:671])) == 0
    assert len(stream.accept(SOUND[671:672])) == 1


def test_frames_wait_until_there_are_enough():
    frontend = build(FrontendConfig())
    samples = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    stream = frontend.stream()
    counts = [len(stream.accept(part, least=5)) for part in np.split(samples, range(400, 4000, 400))]
    assert counts == [0, 0, 5, 0, 5, 0, 5, 0, 5, 0]
    assert sum(counts) + len(stream.accept(samples[:0])) == frontend.frames(4000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_keeps_less_than_a_window(kind):
    stream = FRONTENDS[kind].stream()
    for block in np.array_split(np.tile(SOUND, 10), 333):
        stream.accept(block)
        assert sum(map(len, stream.blocks)) == stream.samples < 512
        assert all(kept.base is None for kept in stream.blocks)  # not views that keep all that was heard alive


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", [librosa_power, torchaudio_power])
def test_equals_librosa_and_torchaudio(kind: str, power: Callable[[np.ndarray], np.ndarray], clips) -> None:
    """To 1e-5 of the largest value, for real speech and for noise with silence in it."""
    for samples in (SOUND, clips[0].samples):
        expected, got = reference(kind, power(samples)), FRONTENDS[kind](samples)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_pcen_takes_level_out():
    """What it is for: the same sound ten times quieter looks nearly the same."""
    quiet = FRONTENDS["pcen"](SOUND / 10)
    log_difference = np.abs(WHOLE["log_mel"] - FRONTENDS["log_mel"](SOUND / 10)).mean()
    assert np.abs(quiet - WHOLE["pcen"]).mean() < 0.1 < 2 < log_difference


@pytest.mark.parametrize("samples, frames", [(0, 0), (1, 0), (511, 0), (512, 1), (671, 1), (672, 2), (16_000, 97)])
@pytest.mark.parametrize("kind", KINDS)
def test_frame_counts(kind, samples, frames):
    frontend = FRONTENDS[kind]
    features = frontend(SOUND[:samples])
    assert features.shape == (frames, 40 if kind == "mfcc" else 80)
    assert frontend.frames(samples) == frames == len(streamed(kind, SOUND[:samples], []))


@pytest.mark.parametrize("kind", KINDS)
def test_silence_and_full_scale_stay_finite(kind):
    for level in (0.0, 1.0, 1e9):
        assert np.isfinite(FRONTENDS[kind](np.full(4000, level))).all()
        assert np.isfinite(FRONTENDS[kind](level * np.sign(SOUND[:4000]))).all()


def test_config_is_honored():
    frontend = build(FrontendConfig(kind="mfcc", mels=64, coefficients=13, hop=80, n_fft=400))
    assert frontend(np.zeros(16_000)).shape == ((16_000 - 400) // 80 + 1, 13)
    assert frontend.bands == 13
    assert frontend.seconds_per_frame == 0.005


def test_an_unknown_frontend_names_the_choices():
    with pytest.raises(ValueError, match=r"'fbank'.*log_mel, mfcc, pcen"):
        build(FrontendConfig(kind="fbank"))
