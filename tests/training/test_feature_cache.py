"""asr.training.feature_cache: batches from cached log-mels."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.audio.features import FrontendConfig, build
from asr.errors import ManifestError, RecipeError
from asr.training.feature_cache import FeatureBatches, add_noise, cached, change_speed, reverberate
from asr.training.prepare import load_prepared
from asr.training.recipe import AugmentConfig, DataConfig
from tests.support.training import prepare_clips

FRONTEND = build(FrontendConfig())
PLAIN = AugmentConfig(speed=0, noise=0, rooms=0, gain=0, narrow=0, join=0, noise_only=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_clips(tmp_path_factory.mktemp("prepared") / "clips")


@pytest.fixture
def data(folder: Path) -> DataConfig:
    return DataConfig((str(folder),), (str(folder),), batch_seconds=10, cached=True)


def epoch(data: DataConfig, augment: AugmentConfig = PLAIN, skip: int = 0, **share: int) -> list:
    batches = FeatureBatches(FRONTEND, data, augment)
    return list(batches.epoch(lambda _: 1.0, epoch=0, skip=skip, first=skip, seed=0, **share))


def test_features_are_those_of_the_frontend_in_half_precision(folder: Path) -> None:
    clips = cached(folder, "train", FRONTEND)
    for clip, cut in zip(clips, load_prepared(folder, "train"), strict=True):
        expected = FRONTEND(cut.load_audio()[0])
        np.testing.assert_allclose(clip.mel(), expected, atol=0.01)
        assert clip.text == cut.supervisions[0].text


def test_features_are_computed_once_for_each_frontend(folder: Path) -> None:
    other = build(dataclasses.replace(FrontendConfig(), mels=40))
    first = cached(folder, "train", FRONTEND)[0]
    files = {path: path.stat().st_mtime_ns for path in folder.glob("features-*/*")}
    assert cached(folder, "train", other)[0].mel().shape[1] == 40
    assert np.array_equal(cached(folder, "train", FRONTEND)[0].mel(), first.mel())
    assert all(path.stat().st_mtime_ns == files[path] for path in files)


def test_an_epoch_holds_every_sentence_once_but_those_of_dev(data: DataConfig, folder: Path) -> None:
    texts = sorted(text for batch in epoch(data) for text in batch.texts)
    assert texts == sorted(clip.text for clip in cached(folder, "train", FRONTEND))
    dev = dataclasses.replace(data, train=(str(folder),))
    overlap = FeatureBatches(FRONTEND, dev, PLAIN)
    assert not {clip.text for clip in overlap.clips} & {clip.text for clip in cached(folder, "dev", FRONTEND)}


def test_weights_say_how_often_an_epoch_takes_a_clip(data: DataConfig, folder: Path) -> None:
    clips = cached(folder, "train", FRONTEND)
    corpora = [clip.corpus for clip in clips]
    assert len(set(corpora)) > 1 and all(corpora)
    weights = {corpora[0]: 3.0}
    taken = [text for batch in epoch(dataclasses.replace(data, weights=weights)) for text in batch.texts]
    assert sorted(taken) == sorted(c.text for c in clips for _ in range(3 if c.corpus == corpora[0] else 1))


def test_half_a_weight_takes_half_of_the_clips(data: DataConfig, folder: Path) -> None:
    corpora = {clip.corpus for clip in cached(folder, "train", FRONTEND)}
    batches = FeatureBatches(FRONTEND, dataclasses.replace(data, weights=dict.fromkeys(corpora, 0.5)), PLAIN)
    taken = sum(len(batch) for seed in range(200) for batch in batches.plan(random.Random(seed)))
    assert taken / (200 * len(batches.clips)) == pytest.approx(0.5, abs=0.1)


def test_weights_of_unknown_corpora_are_an_error(data: DataConfig) -> None:
    with pytest.raises(RecipeError, match="nowhere"):
        epoch(dataclasses.replace(data, weights={"nowhere": 2.0}))


def test_skipping_gives_the_rest(data: DataConfig) -> None:
    every = AugmentConfig(speed=0.5, noise=0, rooms=0.5, join=0.5, response=5.0)
    whole, rest = epoch(data, every), epoch(data, every, skip=1)
    assert len(rest) == len(whole) - 1
    for a, b in zip(whole[1:], rest, strict=True):
        assert a.texts == b.texts and torch.equal(a.mel, b.mel)


def test_processes_share_a_batch(data: DataConfig) -> None:
    for whole, *shares in zip(epoch(data), *(epoch(data, rank=rank, world=3) for rank in range(3)), strict=True):
        texts = [text for share in shares if not share.filler for text in share.texts]
        assert sorted(texts) == sorted(whole.texts)


def test_rows_are_padded_with_the_floor_of_the_frontend(data: DataConfig) -> None:
    for batch in epoch(data):
        for row, length in zip(batch.mel, batch.lengths, strict=True):
            assert torch.allclose(row[length:], torch.tensor(np.log(1e-6), dtype=torch.float32))
        assert batch.seconds == pytest.approx(float(batch.lengths.sum()) / 100)


def test_joined_clips_hold_all_texts_in_order(data: DataConfig) -> None:
    plain = [text for batch in epoch(data) for text in batch.texts]
    joined = [text for batch in epoch(data, dataclasses.replace(PLAIN, join=1.0)) for text in batch.texts]
    assert " ".join(joined) == " ".join(plain) and len(joined) < len(plain)


def test_speed_changes_the_length_only() -> None:
    mel = np.repeat(np.arange(100, dtype=np.float32)[:, None], 3, axis=1)
    fast = change_speed(mel, 1.1)
    assert len(fast) == 90 and np.allclose(np.diff(fast[:, 0]), 1.1, atol=1e-4)


def test_noise_lies_as_far_below_the_speech_as_asked() -> None:
    rng = np.random.default_rng(0)
    mel, noise = (rng.normal(size=(50, 4)).astype(np.float32) for _ in range(2))
    added = np.exp(add_noise(mel, noise, 10.0)) - np.exp(mel)
    assert 10 * np.log10(np.exp(mel).mean() / added.mean()) == pytest.approx(10.0, abs=0.01)


def test_a_room_adds_a_tail_that_decays() -> None:
    mel = np.full((60, 1), -10.0, np.float32)
    mel[5] = 5.0
    tail = reverberate(mel, frames=30, direct_db=0.0)[6:35, 0]
    assert (np.diff(tail) < 0).all() and tail[0] - tail[-1] == pytest.approx(28 * 6 * np.log(10) / 30, rel=0.2)


def test_noise_only_rows_have_no_text(data: DataConfig, folder: Path) -> None:
    batches = FeatureBatches(FRONTEND, data, dataclasses.replace(PLAIN, noise_only=1.0))
    batches.noises = [clip.mel() for clip in cached(folder, "dev", FRONTEND)]
    batch = batches.load(batches.clips[:2], 1.0, random.Random(0))
    assert batch.texts[-1] == "" and len(batch.texts) == 3


def test_folders_of_which_dev_has_all_are_named(folder: Path, tmp_path: Path) -> None:
    data = DataConfig((str(folder),), (str(folder),), cached=True)
    batches = FeatureBatches(FRONTEND, data, PLAIN)
    assert batches.clips
    same = prepare_clips(tmp_path / "same", train=("ljspeech-1", "commonvoice-1"))
    with pytest.raises(ManifestError, match="dev"):
        FeatureBatches(FRONTEND, DataConfig((str(same),), (str(same),), cached=True), PLAIN)
