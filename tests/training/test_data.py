"""What training is fed: the same batches for the same seed, whoever reads them, and texts that stay with the sound."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.audio.features import FrontendConfig, build
from asr.decoding.g2p import G2P
from asr.errors import ManifestError, RecipeError
from asr.training.data import (
    Augment,
    Batch,
    TargetEncoder,
    batches,
    load_augment,
    load_cuts,
    plan,
    read_lexicon,
    token_sets,
)
from asr.training.prepare import load_prepared, prepare
from asr.training.recipe import AugmentConfig, DataConfig
from asr.training.sources import from_noise
from tests.conftest import Clip
from tests.support.training import CLIPS, prepare_clips

RATE = 16_000
FRONTEND = build(FrontendConfig())
FLOOR = float(FRONTEND(np.zeros(512, np.float32))[0, 0])
CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "en-small"
EVERYTHING = AugmentConfig(speed=1.0, noise=1.0, rooms=1.0, narrow=0.5, join=1.0, noise_only=1.0)
NOTHING = AugmentConfig(speed=0.0, noise=0.0, rooms=0.0, gain=0.0, narrow=0.0, join=0.0, noise_only=0.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips (18 to train on, in order of their names), noise and rooms, prepared."""
    home = tmp_path_factory.mktemp("data")
    prepare_clips(home / "clips", tuple(sorted(path.stem for path in CLIPS.glob("*.flac"))), ())
    rng = np.random.default_rng(0)
    (home / "sounds").mkdir()
    soundfile.write(home / "sounds" / "hiss.wav", rng.normal(0, 0.05, 30 * RATE), RATE)
    prepare(from_noise(home / "sounds"), home / "noise")
    (home / "rooms").mkdir()
    soundfile.write(home / "rooms" / "hall.flac", rng.normal(0, 0.1, 4000) * np.exp(-np.arange(4000) / 500), RATE)
    return home


@pytest.fixture
def config(home: Path) -> DataConfig:
    return DataConfig(
        (str(home / "clips"),),
        (),
        noise=str(home / "noise"),
        rooms=str(home / "rooms"),
        batch_seconds=20.0,
        workers=0,
        sorted_epochs=0,
    )


def read(
    config: DataConfig,
    augment: Augment | None,
    epoch: int = 3,
    skip: int = 0,
    first: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    return batches(
        load_cuts(config.train, "train"),
        config,
        FRONTEND,
        augment,
        lambda update: 1.0,
        epoch=epoch,
        skip=skip,
        first=first,
        seed=7,
        rank=rank,
        world=world,
    )


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.texts == b.texts and torch.equal(a.mel, b.mel) and torch.equal(a.lengths, b.lengths)
        for a, b in zip(one, other, strict=True)
    )


def test_batches_are_the_same_with_any_number_of_workers(config: DataConfig) -> None:
    augment = load_augment(EVERYTHING, config)
    alone = list(read(config, augment))
    assert len(alone) >= 4 and not any(batch.failed for batch in alone)
    assert same(alone, list(read(replace(config, workers=1), augment)))
    assert not same(alone, list(read(config, augment, first=1)))  # another update is augmented in another way
    assert not same(alone, list(read(config, augment, epoch=4)))


def test_skipping_gives_the_rest(config: DataConfig) -> None:
    augment = load_augment(EVERYTHING, config)
    whole = list(read(config, augment, first=100))
    for skip in (1, 3):
        assert same(whole[skip:], list(read(config, augment, skip=skip, first=100 + skip)))
    assert not list(read(config, augment, skip=len(whole), first=100))


def test_an_epoch_holds_every_clip_once(config: DataConfig, clips: list[Clip]) -> None:
    for bucketed in (False, True):
        folders = config.train * (2 if bucketed else 1)  # 36 clips fill the buckets, 18 do not
        cuts = load_cuts(folders, "train")
        for epoch in (0, 1):
            found = [cut.id for each in plan(cuts, config, epoch, 0) for cut in each]
            assert sorted(found) == sorted(cut.id for cut in cuts)
        assert found != [cut.id for each in plan(cuts, config, 0, 0) for cut in each]
    read_texts = [text for batch in read(config, None) for text in batch.texts]
    assert sorted(read_texts) == sorted(clip.text for clip in clips)


@pytest.mark.filterwarnings("error")
def test_the_first_epoch_goes_from_short_to_long(config: DataConfig) -> None:
    config = replace(config, sorted_epochs=1, train=config.train * 2)
    lengths = [length for batch in read(config, None, epoch=0) for length in batch.lengths.tolist()]
    assert lengths == sorted(lengths) and len(lengths) == 36
    lengths = [length for batch in read(config, None, epoch=1) for length in batch.lengths.tolist()]
    assert lengths != sorted(lengths)


def test_a_batch_is_as_long_as_the_recipe_says(config: DataConfig) -> None:
    for epoch in (0, 1):
        for batch in read(replace(config, sorted_epochs=1), None, epoch=epoch):
            assert len(batch.texts) * batch.mel.shape[1] <= 20.0 * 100
            assert all(torch.all(row[length:] == FLOOR) for row, length in zip(batch.mel, batch.lengths, strict=True))


def test_processes_share_a_batch(config: DataConfig) -> None:
    whole = list(read(config, load_augment(EVERYTHING, config)))
    halves = [list(read(config, load_augment(EVERYTHING, config), rank=rank, world=2)) for rank in (0, 1)]
    for both, one, other in zip(whole, *halves, strict=True):
        assert both.texts[0::2] == one.texts and (both.texts[1::2] or [""]) == other.texts
        assert torch.equal(both.mel[0, : both.lengths[0]], one.mel[0, : one.lengths[0]])


def test_parts_are_the_batch(config: DataConfig) -> None:
    batch = max(read(config, None), key=lambda each: len(each.texts))
    for count in (1, 2, 3, 99):
        parts = list(batch.parts(count))
        assert len(parts) == min(count, len(batch.texts))
        assert sorted(text for part in parts for text in part.texts) == sorted(batch.texts)
        assert sum(int(part.lengths.sum()) for part in parts) == int(batch.lengths.sum())
        for index, part in enumerate(parts):
            assert part.mel.shape[1] == part.lengths.max()
            assert torch.equal(part.mel[0], batch.mel[index, : part.mel.shape[1]])


@pytest.mark.parametrize("damage", ["replaced", "cut", "gone"])
def test_a_broken_clip_is_left_out_and_named(config: DataConfig, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(config.train[0], folder)
    victim = load_prepared(folder, "train")[4]
    path = Path(victim.recording.sources[0].source)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"noise" * 999 if damage == "replaced" else path.read_bytes()[:3000])
    found = list(read(replace(config, train=(str(folder),), workers=1), None))
    texts = [text for batch in found for text in batch.texts]
    failed = [failure for batch in found for failure in batch.failed]
    assert len(texts) == 17 and victim.supervisions[0].text not in texts
    assert len(failed) == 1 and failed[0].startswith(f"{victim.id}: ") and "\n" not in failed[0]


def test_a_batch_of_which_nothing_can_be_read_is_silence(config: DataConfig, tmp_path: Path) -> None:
    folder = prepare_clips(tmp_path / "one", ("kathleen-0",), ())
    next(folder.rglob("*.flac")).unlink()
    (batch,) = read(replace(config, train=(str(folder),)), None)
    assert batch.texts == [""] and torch.all(batch.mel == FLOOR) and len(batch.failed) == 1


def augmented(config: DataConfig, seed: int = 0, strength: float = 1.0, **chances: float) -> tuple[list, list]:
    """The prepared cuts, and what augmentation with only these chances makes of them."""
    cuts = list(load_cuts(config.train, "train"))
    changed = load_augment(replace(NOTHING, **chances), config)(cuts, strength, random.Random(seed))
    return cuts, changed


def said(cuts: list) -> list[str]:
    return [" ".join(each.text for each in cut.supervisions if each.text) for cut in cuts]


def test_augmentation_keeps_texts_and_their_order(config: DataConfig) -> None:
    for seed in range(5):
        cuts, changed = augmented(config, seed, speed=1.0, noise=1.0, rooms=1.0, gain=12.0, narrow=0.5, join=1.0)
        assert " ".join(said(changed)) == " ".join(said(cuts))
    cuts, changed = augmented(config, speed=0.0)
    assert all(np.array_equal(one.load_audio(), other.load_audio()) for one, other in zip(cuts, changed, strict=True))


@pytest.mark.parametrize(
    ("name", "value"), [("speed", 1.0), ("noise", 1.0), ("rooms", 1.0), ("gain", 12.0), ("narrow", 1.0)]
)
def test_each_augmentation_changes_the_sound(config: DataConfig, name: str, value: float) -> None:
    cuts, changed = augmented(config, **{name: value})
    before, after = cuts[1].load_audio()[0], changed[1].load_audio()[0]
    if name == "speed":
        assert len(after) / len(before) == pytest.approx(1 / 0.9, abs=0.01) or len(after) / len(
            before
        ) == pytest.approx(1 / 1.1, abs=0.01)
        return
    assert after.shape == before.shape and not np.array_equal(after, before)
    if name == "gain":
        share = after @ before / (before @ before)
        assert 10 ** (-12 / 20) <= share <= 10 ** (12 / 20)
        np.testing.assert_allclose(after, share * before, atol=1e-5)
    if name == "noise":
        signal_to_noise = 10 * np.log10((before @ before) / ((after - before) @ (after - before)))
        assert 4.0 < signal_to_noise < 31.0
    if name == "narrow":  # nothing above 4 kHz is left
        high = np.abs(np.fft.rfft(after))[int(len(after) * 4200 / RATE) :]
        assert (high**2).sum() < 0.02 * (np.abs(np.fft.rfft(before))[int(len(before) * 4200 / RATE) :] ** 2).sum()


def test_joined_texts_stand_in_the_order_of_the_sound(config: DataConfig) -> None:
    cuts, changed = augmented(config, join=1.0)
    assert len(changed) < len(cuts)
    joined = next(cut for cut in changed if len(cut.supervisions) > 1)
    number = changed.index(joined)
    parts = cuts[sum(len(cut.supervisions) for cut in changed[:number]) :][: len(joined.supervisions)]
    assert said([joined])[0] == " ".join(said(parts))
    sound, end = joined.load_audio()[0], 0
    for part, place in zip(parts, sorted(joined.supervisions, key=lambda each: each.start), strict=True):
        assert place.text == part.supervisions[0].text
        alone, start = part.load_audio()[0], round(place.start * RATE)
        assert end == 0 or 0.1 * RATE <= start - end <= 1.0 * RATE + 1  # silence between them
        assert not sound[end:start].any()
        np.testing.assert_allclose(sound[start : start + len(alone)], alone, atol=1e-4)
        end = start + len(alone)
    assert all(cut.duration < 16.0 for cut in changed if len(cut.supervisions) > 1)


def test_a_row_of_noise_has_no_text(config: DataConfig) -> None:
    batch = next(read(config, load_augment(replace(NOTHING, noise_only=1.0), config)))
    assert batch.texts[-1] == "" and all(batch.texts[:-1])
    assert torch.any(batch.mel[-1] > FLOOR) and batch.lengths[-1] <= batch.lengths[:-1].max()


def test_nothing_is_augmented_at_strength_0(config: DataConfig) -> None:
    cuts, changed = augmented(config, strength=0.0, speed=1.0, noise=1.0, rooms=1.0, gain=9.0, narrow=1.0, join=1.0)
    assert [cut.id for cut in changed] == [cut.id for cut in cuts]


def test_folders_that_lack_what_is_asked_are_named(config: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="holds no room impulse responses"):
        load_augment(EVERYTHING, replace(config, rooms=str(tmp_path)))
    with pytest.raises(ManifestError, match="holds no prepared split 'train'"):
        load_augment(EVERYTHING, replace(config, noise=str(tmp_path)))
    with pytest.raises(ManifestError, match="no folder for 'dev'"):
        load_cuts((), "dev")


def test_shards_are_read_as_a_stream(config: DataConfig, tmp_path: Path) -> None:
    cuts = load_cuts(config.train, "train")
    (tmp_path / "shards" / "train").mkdir(parents=True)
    cuts.to_shar(tmp_path / "shards" / "train", fields={"recording": "flac"}, shard_size=5)
    shards = load_prepared(tmp_path / "shards", "train")
    assert shards.is_lazy
    sharded = replace(config, train=(str(tmp_path / "shards"),))
    texts = sorted(text for batch in read(sharded, None) for text in batch.texts)
    assert texts == sorted(cut.supervisions[0].text for cut in cuts)
    both = replace(config, train=(str(tmp_path / "shards"), *config.train))
    augment = load_augment(replace(NOTHING, speed=1.0, noise=1.0), config)
    found = list(read(both, augment))
    assert sum(bool(text) for batch in found for text in batch.texts) == 36 and not any(batch.failed for batch in found)
    assert same(found[2:], list(read(both, augment, skip=2, first=2)))


def test_characters_are_those_of_the_texts(config: DataConfig) -> None:
    tokens = token_sets(load_cuts(config.train, "train"), config)
    assert set(tokens) == {"characters"}
    texts = {*"".join(cut.supervisions[0].text for cut in load_cuts(config.train, "train"))}
    assert tokens["characters"].symbols == ("-", " ", *sorted(texts - {" "})) and "'" in texts
    targets = TargetEncoder(tokens, config).targets("it's a")["characters"]
    assert [tokens["characters"].symbols[each] for each in targets] == ["i", "t", "'", "s", " ", "a", " "]


@pytest.fixture
def spoken(config: DataConfig, tmp_path: Path) -> DataConfig:
    (tmp_path / "lexicon.txt").write_text("the\tDH AH\nthe\tDH IY\ncat\tK AE T\nsat\tS AE T\n", "utf-8")
    return replace(
        config, lexicon=str(tmp_path / "lexicon.txt"), pronunciation=str(CHECKPOINT / "pronunciation.safetensors")
    )


def test_phonemes_come_from_the_lexicon_then_from_the_letters(spoken: DataConfig) -> None:
    tokens = token_sets(load_cuts(spoken.train, "train"), spoken)
    symbols = tokens["phonemes"].symbols
    assert symbols == ("-", "|", "AE", "AH", "DH", "IY", "K", "S", "T")
    encoder = TargetEncoder(tokens, spoken)
    targets = encoder.targets("the cat")["phonemes"]
    assert [symbols[each] for each in targets] == ["DH", "AH", "|", "K", "AE", "T", "|"]
    guessed = G2P.load(CHECKPOINT / "pronunciation.safetensors").pronounce("scat")[0]
    assert encoder.pronounce("scat") == guessed == ("S", "K", "AE", "T")
    assert not encoder.unpronounced


def test_a_word_that_cannot_be_pronounced_is_remembered(spoken: DataConfig) -> None:
    tokens = token_sets(load_cuts(spoken.train, "train"), spoken)
    encoder = TargetEncoder(tokens, spoken)
    with_it, without = encoder.targets("the ωμέγα cat"), encoder.targets("the cat")
    assert with_it["phonemes"] == without["phonemes"] and encoder.unpronounced == {"ωμέγα"}
    alone = TargetEncoder(tokens, replace(spoken, pronunciation=""))
    assert alone.targets("scat")["phonemes"] == [] and alone.unpronounced == {"scat"}


def test_a_lexicon_that_is_not_there_is_named(spoken: DataConfig) -> None:
    tokens = token_sets(load_cuts(spoken.train, "train"), spoken)
    with pytest.raises(RecipeError, match=r"data\.lexicon"):
        TargetEncoder(tokens, replace(spoken, lexicon=""))
    with pytest.raises(RecipeError, match=r"lexicon gone\.txt cannot be read"):
        read_lexicon(Path("gone.txt"))
