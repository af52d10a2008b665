import io
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from functools import cache

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.reading import SAMPLE_RATE, AudioWarning, Resampler, duration, read_blocks, to_mono
from asr.errors import AudioError
from tests.support.recordings import encode, wav_bytes


def tone(hertz, seconds, rate, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def chirp(seconds, rate):
    """200 Hz to 1.5 kHz, faded in and out: no two moments alike, and every coding here can carry it."""
    t = np.arange(round(seconds * rate)) / rate
    sweep = np.sin(2 * np.pi * (200 * t + 650 / seconds * t**2))
    return (0.4 * sweep * np.sin(np.pi * t / seconds) ** 0.5).astype(np.float32)


def read(source, **options):
    return np.concatenate([np.zeros(0, np.float32), *read_blocks(source, **options)])


class Pipe(io.RawIOBase):
    """Bytes that cannot seek, a little at a time."""

    def __init__(self, data, at_once=1000):
        self.file, self.at_once = io.BytesIO(data), at_once

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.file.readinto(memoryview(buffer)[: self.at_once])


# ---- to_mono ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([0, 16384, -32768], np.int16), [0, 0.5, -1]),
        (np.array([0, 2**30, -(2**31)], np.int32), [0, 0.5, -1]),
        (np.array([128, 192, 0], np.uint8), [0, 0.5, -1]),
        (np.array([0, 0.5, -1], np.float64), [0, 0.5, -1]),
        (np.array([0, 0.5, -3], ">f4"), [0, 0.5, -3]),
        (np.array([[32767, 32767], [-32768, -32768], [16384, 0]], np.int16), [32767 / 32768, -1, 0.25]),
        (np.array([[128, 192], [0, 0]], np.uint8), [0.25, -1]),
        (np.array([[0.0, 1, 0.5]]), [0.5]),
        (np.zeros(0, np.int16), []),
        (np.zeros((0, 2), np.float32), []),
    ],
)
def test_to_mono_scales_and_averages(samples, expected):
    mono = to_mono(samples)
    assert mono.dtype == np.float32 and mono.shape == (len(expected),)
    np.testing.assert_allclose(mono, expected, atol=1e-7)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(4, np.int64), np.zeros(4, np.uint16), np.zeros(4, np.complex64), np.zeros(4, bool), np.array(["a"]),
        np.zeros((2, 2, 2), np.float32), np.zeros((4, 0), np.float32), np.zeros((2, 1600), np.float32),
        np.array(0.5), np.array([0, np.nan]), np.array([0, np.inf]), np.array([-np.inf, 0]), np.array([1e300]),
        np.array([[np.inf, -np.inf]]), np.array([1e30], np.float32),
    ],
)  # fmt: skip
def test_to_mono_refuses_in_one_sentence(samples):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AudioError, match=r"; .*\.$"):
            to_mono(samples)


def test_to_mono_copies():
    samples = np.ones(4, np.float32)  # a sound card's buffer is filled anew while we still hold the block
    to_mono(samples)[:] = 0
    assert samples.all()


# ---- Resampler --------------------------------------------------------------------------------------------------

RATES = [8000, 11025, 16000, 22050, 44100, 48000, 96000, 44099.5, 12345.678]


def resample(samples, rate, cuts=()):
    resampler = Resampler(rate)
    out = [resampler.push(piece) for piece in np.split(samples, sorted(cuts))]
    return np.concatenate([*out, resampler.flush()])


@pytest.mark.parametrize("rate", RATES)
def test_resampler_one_sample_at_a_time(rate):
    samples = np.random.default_rng(0).standard_normal(int(rate * 0.3)).astype(np.float32)
    np.testing.assert_array_equal(resample(samples, rate, range(1, len(samples))), resample(samples, rate))


@settings(max_examples=60, deadline=None)
@given(rate=st.sampled_from(RATES), length=st.integers(0, 30_000), seed=st.integers(0, 99), data=st.data())
def test_resampler_does_not_hear_the_cuts(rate, length, seed, data):
    samples = np.random.default_rng(seed).standard_normal(length).astype(np.float32)
    cuts = data.draw(st.lists(st.integers(0, length), max_size=40))
    whole = resample(samples, rate)
    np.testing.assert_array_equal(resample(samples, rate, cuts), whole)
    assert abs(len(whole) - length * SAMPLE_RATE / rate) <= 1


@pytest.mark.parametrize("rate", RATES)
def test_resampler_keeps_amplitude_pitch_place_and_length(rate):
    out = resample(tone(1000, 2, rate), rate)
    assert abs(len(out) - 2 * SAMPLE_RATE) <= 1
    middle = slice(4000, -4000)
    # 0.1 dB is 1.15 %; comparing the wave itself also pins pitch and delay.
    np.testing.assert_allclose(out[middle], tone(1000, 2, SAMPLE_RATE)[: len(out)][middle], atol=0.5 * 0.005)
    decibel = 20 * np.log10(np.sqrt(2 * np.mean(out[middle] ** 2)) / 0.5)
    assert abs(decibel) < 0.1


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_resampler_lets_no_alias_through(rate):
    out = resample(tone(12_000, 1, rate), rate)[1600:-1600]
    assert np.abs(out).max() < 0.5 * 10 ** (-80 / 20)


@pytest.mark.parametrize(("rate", "milliseconds"), [(16000, 0), (48000, 37), (44100, 41), (96000, 80), (8000, 117)])
def test_resampler_delay_is_as_documented(rate, milliseconds):
    resampler, out, worst = Resampler(rate), 0, 0.0
    block = np.zeros(rate // 1000, np.float32)
    for count in range(1, 1500):
        out += len(resampler.push(block))
        worst = max(worst, count * len(block) / rate - out / SAMPLE_RATE)
    assert worst * 1000 <= milliseconds


def test_resampler_flush_twice_and_push_after():
    resampler = Resampler(8000)
    resampler.push(np.ones(80, np.int16))
    assert len(resampler.flush()) == 160
    assert len(resampler.flush()) == 0
    with pytest.raises(AudioError, match="flushed"):
        resampler.push(np.ones(80, np.int16))


@pytest.mark.parametrize("rate", [0, -16000, float("nan"), float("inf"), 999, 768_001])
def test_resampler_refuses_absurd_rates(rate):
    with pytest.raises(AudioError, match="Hz"):
        Resampler(rate)


# ---- formats ----------------------------------------------------------------------------------------------------

SOUNDFILE = [
    (extension, subtype, rate, channels)
    for extension, subtypes in {
        "wav": ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"],
        "aiff": ["PCM_16", "PCM_24", "FLOAT"],
        "flac": ["PCM_16", "PCM_24"],
        "w64": ["PCM_16"],
        "au": ["PCM_16"],
        "caf": ["PCM_16"],
    }.items()
    for subtype in subtypes
    for rate, channels in [(16000, 1), (44100, 2), (48000, 6)]
]


@pytest.mark.parametrize(("extension", "subtype", "rate", "channels"), SOUNDFILE)
def test_lossless_formats(tmp_path, extension, subtype, rate, channels):
    path = tmp_path / f"clip.{extension}"
    samples = chirp(1.5, rate)
    soundfile.write(path, np.tile(samples[:, None], (1, channels)), rate, subtype=subtype)
    expected = resample(samples, rate)
    tolerance = 2e-2 if subtype in ("PCM_U8", "ULAW") else 1e-4
    np.testing.assert_allclose(read(path), expected, atol=tolerance)
    assert duration(path) == pytest.approx(1.5, abs=1e-3)


def test_channels_are_averaged(tmp_path):
    one, two = tone(500, 1, 16000), tone(900, 1, 16000)
    soundfile.write(tmp_path / "two.wav", np.stack([one, two], 1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read(tmp_path / "two.wav"), (one + two) / 2, atol=1e-6)


def test_eight_channels_each_in_its_plane(tmp_path):
    encode(str(tmp_path / "clip.mka"), chirp(1, 48000), 48000, "pcm_s16le_planar", "s16p", 8, container="nut")
    np.testing.assert_allclose(read(tmp_path / "clip.mka"), resample(chirp(1, 48000), 48000), atol=1e-4)


def test_more_planes_than_can_be_read_safely(tmp_path):
    encode(str(tmp_path / "clip.mka"), chirp(1, 48000), 48000, "pcm_s16le_planar", "s16p", 12, container="nut")
    with pytest.raises(AudioError, match="nothing could be decoded"):
        read(tmp_path / "clip.mka")


ENCODED = [  # name, codec, sample format, rate, channels, video
    ("clip.mp3", "libmp3lame", "fltp", 44100, 2, False),
    ("low.mp3", "libmp3lame", "s16p", 16000, 1, False),
    ("clip.m4a", "aac", "fltp", 44100, 2, False),
    ("film.mp4", "aac", "fltp", 48000, 2, True),
    ("clip.webm", "libopus", "flt", 48000, 1, False),
    ("film.mkv", "libopus", "flt", 48000, 2, True),
    ("clip.opus", "libopus", "s16", 48000, 1, False),
    ("clip.ogg", "vorbis", "fltp", 44100, 2, False),
    ("clip.mka", "flac", "s16", 22050, 1, False),
    ("film.mov", "pcm_s16le", "s16", 48000, 1, True),
    ("film.avi", "libmp3lame", "fltp", 44100, 2, True),
    ("clip.aac", "aac", "fltp", 32000, 1, False),
    ("clip.ts", "mp2", "s16", 48000, 2, False),
    ("phone.amr", "libopencore_amrnb", "s16", 8000, 1, False),
]


@pytest.mark.parametrize(("name", "codec", "sample_format", "rate", "channels", "video"), ENCODED)
def test_lossy_formats_and_films(tmp_path, capfd, name, codec, sample_format, rate, channels, video):
    path, seconds = tmp_path / name, 2.0
    if codec == "vorbis":  # FFmpeg's own encoder of it is poor
        soundfile.write(path, np.tile(chirp(seconds, rate)[:, None], (1, channels)), rate, subtype="VORBIS")
    else:
        bit_rate = 12_200 if codec == "libopencore_amrnb" else None
        encode(str(path), chirp(seconds, rate), rate, codec, sample_format, channels, video=video, bit_rate=bit_rate)
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heard = read(path)
    assert capfd.readouterr() == ("", "")
    assert len(heard) == pytest.approx(seconds * SAMPLE_RATE, abs=0.12 * SAMPLE_RATE)
    # Found by cross-correlation: raw AAC and AMR carry no encoder delay to take out.
    expected = chirp(seconds, SAMPLE_RATE)
    size = 2**17
    match = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(expected, size)))
    likeness = match.max() / np.sqrt(np.sum(heard**2) * np.sum(expected**2))
    assert likeness > (0.9 if codec == "libopencore_amrnb" else 0.97)
    late = (match.argmax() + size // 2) % size - size // 2
    assert abs(late) <= (0.1 if name in ("clip.aac", "phone.amr", "clip.ts", "film.avi") else 0.002) * SAMPLE_RATE
    assert 1.8 < (duration(path) or 2) < 2.3


def test_real_speech_if_present():
    path = os.path.join(os.path.dirname(__file__), "../../../shared/speech/rooms")
    if not os.path.isdir(path):
        pytest.skip("../shared/speech is not here")
    path = os.path.join(path, sorted(os.listdir(path))[0])
    expected, rate = soundfile.read(path, dtype="float32")
    assert rate == SAMPLE_RATE
    np.testing.assert_allclose(read(path), expected, atol=1e-6)


def bare_mp3(samples, rate, channels=1, bit_rate=64_000):
    """MP3 frames and nothing else: such files can be put one after the other."""
    file = io.BytesIO()
    plain = {"write_xing": "0", "id3v2_version": "0"}
    encode(file, samples, rate, "libmp3lame", "fltp", channels, container="mp3", options=plain, bit_rate=bit_rate)
    return file.getvalue()


def test_rate_and_channels_change_inside_a_file():
    parts = [bare_mp3(tone(440, 1, rate), rate, channels) for rate, channels in [(44100, 2), (48000, 1), (48000, 2)]]
    heard = read(io.BytesIO(b"".join(parts)))
    assert len(heard) == pytest.approx(3 * SAMPLE_RATE, abs=0.2 * SAMPLE_RATE)
    for second in (heard[4000:12000], heard[20000:28000], heard[-12000:-4000]):
        spectrum = np.abs(np.fft.rfft(second))
        assert spectrum.argmax() * SAMPLE_RATE / len(second) == pytest.approx(440, abs=2)


def test_a_guessed_length_raises_no_alarm():
    # Without a tag FFmpeg takes the first frames' bit rate for all: here 10 s instead of 4.
    data = bare_mp3(chirp(2, 44100), 44100, bit_rate=32_000) + bare_mp3(chirp(2, 44100), 44100, bit_rate=128_000)
    assert duration(io.BytesIO(data)) > 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read(io.BytesIO(data))) == pytest.approx(4 * SAMPLE_RATE, abs=0.2 * SAMPLE_RATE)


# ---- sources ----------------------------------------------------------------------------------------------------


def test_arrays():
    samples = chirp(2.3, 44100)
    expected = resample(samples, 44100)
    np.testing.assert_array_equal(read(samples, sample_rate=44100.0), expected)
    np.testing.assert_array_equal(read(samples, sample_rate=44100, block_seconds=0.01), expected)
    assert list(read_blocks(np.zeros(0, np.int16), sample_rate=8000)) == []
    for rate in (None, 0, -1, float("nan"), float("inf")):
        with pytest.raises(AudioError, match="sample_rate="):
            read(samples, sample_rate=rate)
    with pytest.raises(AudioError, match=r"array: .* NaN"):
        read(np.array([np.nan]), sample_rate=16000)


@pytest.mark.parametrize("claimed", [None, 0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000])
@pytest.mark.parametrize("seekable", [False, True])
def test_wav_of_unknown_length(claimed, seekable):
    samples = chirp(6, 16000)
    data = wav_bytes(samples, 16000, claimed)
    file = io.BytesIO(data) if seekable else Pipe(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heard = read(file)
    np.testing.assert_allclose(heard, samples, atol=1e-4)
    if seekable:  # read again from its start, and not closed
        assert duration(file) == pytest.approx(6, abs=0.01)
        assert len(read(file)) == len(samples)
    else:
        assert duration(Pipe(data)) is None


@pytest.mark.parametrize(("codec", "container"), [("libmp3lame", "mp3"), ("libopus", "webm"), ("flac", "ogg")])
def test_other_formats_from_a_pipe(codec, container):
    file = io.BytesIO()
    sample_format = {"libmp3lame": "fltp", "libopus": "flt", "flac": "s16"}[codec]
    encode(file, chirp(3, 48000), 48000, codec, sample_format, container=container)
    assert len(read(Pipe(file.getvalue()))) == pytest.approx(3 * SAMPLE_RATE, abs=0.1 * SAMPLE_RATE)


def test_pipe_is_streamed_and_not_slurped():
    receiving, sending = os.pipe()
    seconds, data = 8, wav_bytes(chirp(8, 16000), 16000, 0xFFFFFFFF)
    proceed, in_time = threading.Event(), []

    def writer():
        with open(sending, "wb", buffering=0) as out:
            out.write(data[: 44 + 6 * 32000])
            in_time.append(proceed.wait(5))
            out.write(data[44 + 6 * 32000 :])

    thread = threading.Thread(target=writer)
    thread.start()
    with open(receiving, "rb") as file:
        heard = 0
        for block in read_blocks(file, block_seconds=0.1):
            assert len(block) <= 1600
            heard += len(block)
            if heard >= 5.8 * SAMPLE_RATE:  # the writer still holds the rest back: nothing waits for the end
                proceed.set()
        assert heard == seconds * SAMPLE_RATE
    thread.join()
    assert in_time == [True]


@pytest.mark.e2e
def test_standard_input(tmp_path):
    code = "import sys; from asr.audio.reading import read_blocks; print(sum(map(len, read_blocks(sys.stdin.buffer))))"
    data = wav_bytes(chirp(2, 22050), 22050, 0xFFFFFFFF)
    result = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert result.stdout.strip() == b"32000"
    assert result.stderr == b""
    result = subprocess.run([sys.executable, "-c", code], input=b"", capture_output=True)
    assert b"AudioError: <stdin>: is empty" in result.stderr


def test_blocks_and_memory_are_bounded(tmp_path):
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 48000, 2) as file:
        for _ in range(300):
            file.write(np.full((48000, 2), 0.25))
    list(read_blocks(io.BytesIO(wav_bytes(tone(440, 1, 16000), 16000))))  # what is imported or cached once
    tracemalloc.start()
    lengths = [len(block) for block in read_blocks(path)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(lengths) == 300 * SAMPLE_RATE
    assert max(lengths) <= SAMPLE_RATE
    assert np.mean(lengths) > 0.4 * SAMPLE_RATE  # and not crumbs either
    assert peak < 10e6  # one block: 1 s × 48 kHz × 2 channels × 4 bytes, a few times over
    assert max(len(block) for block in read_blocks(path, block_seconds=0.02)) <= 320


def test_nothing_is_left_open(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, chirp(3, 16000), 16000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        blocks = read_blocks(path)
        next(blocks)
        blocks.close()
        duration(path)


# ---- errors -----------------------------------------------------------------------------------------------------


def picture():
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as out:
        stream = out.add_stream("png", rate=1)
        stream.width = stream.height = 16
        stream.pix_fmt = "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    return file.getvalue()


def silent_film():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        out.mux(stream.encode(None))
    return file.getvalue()


@cache
def encoded(codec, container, seconds=4, rate=44100):
    file = io.BytesIO()
    encode(file, chirp(seconds, rate), rate, codec, "s16" if codec == "flac" else "fltp", container=container)
    return file.getvalue()


def fast_start(folder):
    """An m4a with its index in front, as for the web."""
    path = folder / "whole.m4a"
    encode(str(path), chirp(4, 44100), 44100, "aac", "fltp", options={"movflags": "faststart"})
    return path.read_bytes()


def bad_contents():
    random = np.random.default_rng(1).integers(0, 256, 20_000, np.uint8).tobytes()
    m4a = encoded("aac", "mp4")
    return {
        "empty.wav": (b"", "empty"),
        "text.txt": (b"This is not sound.\n" * 100, "audio"),
        "text.mp3": (b"Nor is this.\n" * 100, "audio"),
        "random.wav": (random, "audio"),
        "random.mp3": (random, "audio"),
        "picture.png": (picture(), "pictures"),
        "film.mkv": (silent_film(), "pictures"),
        "half.m4a": (m4a[: m4a.index(b"moov") - 4], "is not audio"),
        "short.wav": (wav_bytes(np.zeros(0), 16000), "length is zero"),
        "header.wav": (wav_bytes(np.zeros(0), 16000)[:20], "is not audio"),
        "zero.wav": (wav_bytes(chirp(1, 16000), 0), "sample rate|is not audio"),
        "slow.wav": (wav_bytes(chirp(1, 16000), 1), "a rate of 1 Hz"),
        "fast.wav": (wav_bytes(chirp(1, 16000), 2_000_000_000), "a rate of 2e.09 Hz"),
        "list.m3u8": (b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n", "is not audio"),
        "list.ffconcat": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "is not audio"),
    }


@pytest.mark.parametrize("name", list(bad_contents()))
def test_bad_files_name_themselves(tmp_path, capfd, name):
    content, message = bad_contents()[name]
    path = tmp_path / name
    path.write_bytes(content)
    with path.open("rb") as file:
        for source in (path, str(path), file):
            with pytest.raises(AudioError, match=message) as caught:
                read(source)
            assert str(caught.value).startswith(str(path)) and str(caught.value).endswith(".")
            assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / "secret.wav", chirp(1, 16000), 16000)
    for text in ("ffconcat version 1.0\nfile secret.wav\n", f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/secret.wav\n"):
        (tmp_path / "list").write_text(text)
        with pytest.raises(AudioError):
            read(tmp_path / "list")


def test_unopenable_paths(tmp_path, monkeypatch):
    for source, message in [
        (tmp_path / "missing.wav", "no such file"), (tmp_path, "directory"), ("http://localhost/a.wav", "no such file"),
        ("a\0b.wav", "null"), ("", "no such file"),
    ]:  # fmt: skip
        for function in (read, duration):
            with pytest.raises(AudioError, match=message) as caught:
                function(source)
            assert str(caught.value).startswith(str(source))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # the tests may run as root, who may read anything
    with pytest.raises(AudioError, match=r"secret\.wav: .*permission denied"):
        read(tmp_path / "secret.wav")


def test_wrong_kinds_of_source(tmp_path):
    with pytest.raises(AudioError, match="binary"):
        read(io.StringIO("text"))
    with pytest.raises(AudioError, match="from int"):
        read(3)
    with pytest.raises(AudioError, match="sample rate"):
        read(tmp_path / "a.wav", sample_rate=16000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("channels", [1, 2])
def test_impossible_samples_in_a_file_are_silence(tmp_path, value, channels):
    samples = np.stack([chirp(3, 16000)] * channels, axis=1)
    samples[40_000:40_002, 0] = value
    soundfile.write(tmp_path / "clip.wav", samples, 16000, subtype="FLOAT")
    with pytest.warns(AudioWarning, match=r"clip\.wav: 2 samples are NaN, .*; they are taken as silence\.") as caught:
        heard = read(tmp_path / "clip.wav")
    assert len(caught) == 1
    samples[40_000:40_002, 0] = 0
    np.testing.assert_allclose(heard, samples.mean(axis=1), atol=1e-6)


def test_a_file_of_impossible_samples_alone(tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.full(40_000, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"clip\.wav: all samples are NaN"):
        read(tmp_path / "clip.wav")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.wav", lambda _: wav_bytes(chirp(4, 44100), 44100)),
        ("cut.mp3", lambda _: encoded("libmp3lame", "mp3")),
        ("cut.flac", lambda _: encoded("flac", "flac")),
        ("cut.m4a", fast_start),
        ("cut.mkv", lambda _: encoded("aac", "matroska")),
    ],
)
def test_half_a_file_is_read_and_warned_about(tmp_path, capfd, name, content):
    path, whole = tmp_path / name, content(tmp_path)
    path.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = read(path)
    path.write_bytes(whole[: len(whole) * 55 // 100])
    with pytest.warns(AudioWarning, match=rf"{name}.* [12]\.\d .*seconds could be read") as caught:
        heard = read(path)
    assert caught[0].filename == __file__
    assert 1.5 * SAMPLE_RATE < len(heard) < 3 * SAMPLE_RATE
    np.testing.assert_allclose(heard[:16000], expected[:16000], atol=1e-6)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("codec", "container"), [("libmp3lame", "mp3"), ("flac", "flac"), ("aac", "mp4")])
def test_damage_in_the_middle_costs_only_the_middle(codec, container):
    data = bytearray(encoded(codec, container))
    middle = len(data) // 2
    data[middle : middle + 6000] = np.random.default_rng(0).integers(0, 256, 6000, np.uint8).tobytes()
    with pytest.warns(AudioWarning):
        heard = read(io.BytesIO(bytes(data)))
    assert 2.5 * SAMPLE_RATE < len(heard) <= 4.1 * SAMPLE_RATE


# ---- anything at all --------------------------------------------------------------------------------------------

SEEDS = {
    "wav": lambda: wav_bytes(chirp(0.5, 16000), 16000),
    "flac": lambda: encoded("flac", "flac", 0.5, 16000),
    "mp3": lambda: encoded("libmp3lame", "mp3", 0.5, 16000),
    "ogg": lambda: vorbis(0.5),
    "m4a": lambda: encoded("aac", "mp4", 0.5, 16000),
}


@cache
def vorbis(seconds):
    file = io.BytesIO()
    soundfile.write(file, chirp(seconds, 16000), 16000, format="OGG", subtype="VORBIS")
    return file.getvalue()


def survives(data):
    """Only an AudioError or finite blocks of a bounded size, soon, may come of any bytes."""
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        try:
            for block in read_blocks(io.BytesIO(data)):
                assert 0 < len(block) <= SAMPLE_RATE and np.isfinite(block).all()
            duration(io.BytesIO(data))
        except AudioError:
            pass
    assert time.monotonic() - started < 20


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=3000), magic=st.sampled_from([b"", b"RIFF", b"fLaC", b"ID3", b"OggS", b"\xff\xfb"]))
def test_random_bytes(data, magic):
    survives(magic + data)


@pytest.mark.parametrize("kind", SEEDS)
def test_flipped_headers(kind):
    whole = SEEDS[kind]()
    places = st.integers(0, 120) | st.integers(0, len(whole) - 1)  # the header more often than the rest

    @settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")), deadline=None)
    @given(
        flips=st.lists(st.tuples(places, st.integers(0, 255)), max_size=12),
        keep=st.just(len(whole)) | st.integers(0, len(whole)),
    )
    def flipped(flips, keep):
        data = bytearray(whole)
        for place, value in flips:
            data[min(place, len(data) - 1)] = value
        survives(bytes(data[:keep]))

    flipped()


def test_a_header_that_claims_four_billion_samples():
    for claimed in (0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF):
        tracemalloc.start()
        survives(wav_bytes(chirp(0.5, 16000), 16000, claimed))
        flac = bytearray(encoded("flac", "flac", 0.5, 16000))
        flac[21] |= 0x0F  # the 36-bit count of samples in STREAMINFO
        flac[22:26] = b"\xff" * 4
        survives(bytes(flac))
        assert tracemalloc.get_traced_memory()[1] < 10e6
        tracemalloc.stop()
