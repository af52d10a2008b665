"""Manifests of both forms, what is wrong with bad ones, and exact sound."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.manifest import Utterance, load, read
from asr.errors import AudioError, ManifestError

SPEECH = Path(__file__).parents[3] / "shared" / "speech" / "index.jsonl"
needs_speech = pytest.mark.skipif(not SPEECH.exists(), reason="needs the speech beside the repository")


@pytest.fixture
def sound(tmp_path: Path) -> np.ndarray:
    """Two seconds of 16 kHz sound, which also lie in tmp_path as a.wav."""
    samples = np.random.default_rng(0).integers(-9000, 9000, 32_000).astype(np.float32) / 32768
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    return samples


def write(folder: Path, *lines: object) -> Path:
    manifest = folder / "manifest.jsonl"
    text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    manifest.write_text(text, encoding="utf-8")
    return manifest


def test_both_forms(tmp_path: Path, sound: np.ndarray) -> None:
    manifest = write(
        tmp_path,
        {"file": "a.wav", "start": 5, "samples": 7, "text": "A", "speaker": None, "corpus": "c", "split": "dev"},
        "",
        {"audio": str(tmp_path / "a.wav"), "text": "line\u2028end"},
        {"audio_filepath": "a.wav", "offset": 0.5, "duration": 1.25, "text": "", "speaker": 9, "split": "train"},
    )
    path = tmp_path / "a.wav"
    shard, plain, nemo = read(manifest)
    assert shard == Utterance(path, 5, 7, "A", None, "c", "dev")
    assert plain == Utterance(path, 0, None, "line\u2028end")
    assert nemo == Utterance(path, 8_000, 20_000, "", "9", None, "train")
    assert read(manifest, "dev") == [shard] and read(manifest, "test") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "Expecting property name"),
        ("[1]", "not a JSON object"),
        ({"text": "a"}, '"audio"'),
        ({"audio": "a.wav"}, '"text" is missing'),
        ({"audio": "gone.wav", "text": "a"}, "no audio file .*gone.wav"),
        ({"audio": "a.wav", "text": "a", "offset": -1}, '"offset" is -1'),
        ({"audio": "a.wav", "text": "a", "duration": "3"}, "\"duration\" is '3'"),
        ({"file": "a.wav", "start": 0, "samples": 0, "text": "a"}, "no length"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, sound: np.ndarray, line: object, message: str) -> None:
    manifest = write(tmp_path, {"audio": "a.wav", "text": "good"}, line)
    with pytest.raises(ManifestError, match=rf"manifest\.jsonl, line 2: .*{message}"):
        read(manifest)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nowhere\.jsonl"):
        read(tmp_path / "nowhere.jsonl")


def test_load_cuts_at_the_sample(tmp_path: Path, sound: np.ndarray) -> None:
    path = tmp_path / "a.wav"
    for start, samples in ((100, 50), (31_990, 10), (0, None), (7, None), (100, 50)):
        loaded = load(Utterance(path, start, samples, ""))
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, sound[start:][:samples])
    assert len(load(Utterance(path, 31_000, 5_000, ""))) == 1_000  # a duration rounded up
    with pytest.raises(AudioError, match=r"a\.wav: has no audio at 3\.00 s"):
        load(Utterance(path, 48_000, None, ""))


def test_load_from_many_threads(tmp_path: Path, sound: np.ndarray) -> None:
    starts = list(range(0, 31_000, 31)) * 4
    with ThreadPoolExecutor(4) as pool:
        for start, loaded in zip(
            starts, pool.map(lambda s: load(Utterance(tmp_path / "a.wav", s, 500, "")), starts), strict=True
        ):
            np.testing.assert_array_equal(loaded, sound[start : start + 500])


def test_load_mixes_channels(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "b.wav", np.tile([[0.5, -0.25]], (1_600, 1)), 16_000)
    np.testing.assert_allclose(load(Utterance(tmp_path / "b.wav", 0, None, "")), np.full(1_600, 0.125))


def test_load_of_another_rate(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 48_000)
    soundfile.write(tmp_path / "c.flac", tone, 48_000)
    path = tmp_path / "c.flac"
    load(Utterance(path, 8_000, 4_000, ""))[:] = 9  # what is returned is the caller's
    loaded = load(Utterance(path, 8_000, 4_000, ""))
    np.testing.assert_allclose(loaded, 0.5 * np.sin(2 * np.pi * 440 * np.arange(8_000, 12_000) / 16_000), atol=1e-3)
    assert len(load(Utterance(path, 8_000, None, ""))) == 24_000
    with pytest.raises(AudioError, match="no audio at"):
        load(Utterance(path, 40_000, 10, ""))


def test_load_of_no_sound_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "d.wav").write_text("not sound")
    with pytest.raises(AudioError, match=r"d\.wav"):
        load(Utterance(tmp_path / "d.wav", 0, None, ""))


@needs_speech
def test_the_index() -> None:
    every = read(SPEECH)
    dev = read(SPEECH, "dev")
    assert len(every) > 14_000 and dev == [utterance for utterance in every if utterance.split == "dev"]
    assert 1.0 < sum(utterance.samples or 0 for utterance in dev) / 16_000 / 3600 < 1.2


@needs_speech
def test_opus_shards_give_the_same_samples_in_any_order() -> None:
    some = [utterance for utterance in read(SPEECH) if utterance.path.name == "ls.000.opus"][40:46]
    forwards = [load(utterance) for utterance in some]
    backwards = [load(utterance) for utterance in reversed(some)][::-1]
    stream, _ = soundfile.read(some[0].path, frames=some[-1].start + (some[-1].samples or 0), dtype="float32")
    for utterance, one, other in zip(some, forwards, backwards, strict=True):
        assert len(one) == utterance.samples
        np.testing.assert_array_equal(one, other)
        # An Opus decoder that starts elsewhere differs by about -50 dB; a shift of one sample by far more.
        assert np.abs(one - stream[utterance.start :][: len(one)]).mean() < 0.02 * np.abs(one).mean()
