import librosa
import numpy as np
import pytest
import torch
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
WHOLE = {kind: frontend(torch.from_numpy(SOUND)) for kind, frontend in FRONTENDS.items()}


def streamed(kind: str, samples: np.ndarray, cuts: list[int]) -> torch.Tensor:
    stream = FRONTENDS[kind].stream()
    return torch.cat([stream.accept(block) for block in np.split(samples, cuts)])


def mel_power(samples: np.ndarray) -> np.ndarray:
    """librosa's mel power spectrogram, (mels, frames)."""
    return librosa.feature.melspectrogram(
        y=samples,
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


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(cuts=st.lists(st.integers(0, len(SOUND)), max_size=12))
def test_streaming_equals_batch_for_any_split(kind, cuts):
    torch.testing.assert_close(streamed(kind, SOUND, sorted(cuts)), WHOLE[kind], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_streaming_equals_batch_one_sample_at_a_time(kind):
    got = streamed(kind, SOUND[:4000], list(range(1, 4000)))
    torch.testing.assert_close(got, WHOLE[kind][: len(got)], rtol=1e-5, atol=1e-5)
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
        assert len(stream.tail) < 512
        assert stream.tail.base is None  # not a view that keeps all that was heard alive


def test_log_mel_equals_librosa():
    expected = np.log(mel_power(SOUND) + 1e-6).T
    np.testing.assert_allclose(WHOLE["log_mel"], expected, rtol=1e-4, atol=1e-3)


def test_mfcc_equals_librosa():
    expected = librosa.feature.mfcc(S=np.log(mel_power(SOUND) + 1e-6), n_mfcc=40).T
    np.testing.assert_allclose(WHOLE["mfcc"], expected, rtol=1e-4, atol=2e-3)


def test_pcen_equals_librosa():
    energy = mel_power(SOUND).astype(np.float64) * 2.0**31
    frames = 0.4 * 16_000 / 160
    b = (np.sqrt(1 + 4 * frames**2) - 1) / (2 * frames**2)
    expected = librosa.pcen(
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
    np.testing.assert_allclose(WHOLE["pcen"], expected, rtol=1e-3, atol=1e-3)


def test_pcen_takes_level_out():
    """What it is for: the same sound ten times quieter looks nearly the same."""
    quiet = FRONTENDS["pcen"](torch.from_numpy(SOUND / 10))
    log_difference = (WHOLE["log_mel"] - FRONTENDS["log_mel"](torch.from_numpy(SOUND / 10))).abs().mean()
    assert (quiet - WHOLE["pcen"]).abs().mean() < 0.1 < 2 < log_difference


@pytest.mark.parametrize("samples, frames", [(0, 0), (1, 0), (511, 0), (512, 1), (671, 1), (672, 2), (16_000, 97)])
@pytest.mark.parametrize("kind", KINDS)
def test_frame_counts(kind, samples, frames):
    frontend = FRONTENDS[kind]
    features = frontend(torch.from_numpy(SOUND[:samples]))
    assert features.shape == (frames, 40 if kind == "mfcc" else 80)
    assert frontend.frames(samples) == frames == len(streamed(kind, SOUND[:samples], []))


@pytest.mark.parametrize("kind", KINDS)
def test_silence_and_full_scale_stay_finite(kind):
    for level in (0.0, 1.0, 1e9):
        assert torch.isfinite(FRONTENDS[kind](torch.full((4000,), level))).all()
        assert torch.isfinite(FRONTENDS[kind](level * torch.from_numpy(np.sign(SOUND[:4000])))).all()


def test_config_is_honored():
    frontend = build(FrontendConfig(kind="mfcc", mels=64, coefficients=13, hop=80, n_fft=400))
    assert frontend(torch.zeros(16_000)).shape == ((16_000 - 400) // 80 + 1, 13)
    assert frontend.bands == 13
    assert frontend.seconds_per_frame == 0.005


def test_an_unknown_frontend_names_the_choices():
    with pytest.raises(ValueError, match=r"'fbank'.*log_mel, mfcc, pcen"):
        build(FrontendConfig(kind="fbank"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_utterances(kind: str) -> None:
    samples = torch.from_numpy(np.stack([SOUND, 0.5 * SOUND[::-1]]))
    expected = torch.stack([FRONTENDS[kind](each) for each in samples])
    torch.testing.assert_close(FRONTENDS[kind].batch(samples), expected, rtol=1e-5, atol=1e-5)
