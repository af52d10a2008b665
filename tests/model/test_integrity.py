"""A checkpoint's config.json lists its files: damage is found before anything uses it."""

import json
import random
import warnings
from pathlib import Path

import pytest

import asr
from asr.decoding.beam import LanguageModel
from asr.errors import CheckpointError
from asr.model import checkpoint, integrity
from asr.model.export import save_checkpoint
from asr.model.integrity import CARD, CONFIG, FILES, LEXICON, TEXTS, CheckpointWarning
from tests.support.acoustic import small_checkpoint, small_model
from tests.support.checkpoints import listed, only_config, wrong

SHIPPED = checkpoint.find()
FLIPS = 4  # of each file, and three at its ends


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small = small_checkpoint(small_model("lstm", 4))
    save_checkpoint(tmp_path / "small", small.config, small.weights())
    return tmp_path / "small"


def flipped(data: bytes, chance: random.Random, place: int | None = None) -> bytes:
    damaged = bytearray(data)
    damaged[chance.randrange(len(data)) if place is None else place] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def test_the_shipped_checkpoint_is_as_its_config_lists_it():
    assert set(listed(SHIPPED)) == {path.name for path in SHIPPED.iterdir()}, "run `asr doctor --renew`"
    assert wrong(SHIPPED) == [], "run `asr doctor --renew`"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint.load()


@pytest.mark.model
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_of_any_file_is_found(tmp_path: Path, name: str):
    for path in SHIPPED.iterdir():
        if path.name != name:
            (tmp_path / path.name).symlink_to(path)
    chance, whole = random.Random(name), (SHIPPED / name).read_bytes()
    for place in [0, 8, len(whole) - 1, *[None] * FLIPS]:
        data = flipped(whole, chance, place)
        (tmp_path / name).write_bytes(data)
        said = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = checkpoint.load(tmp_path)
                if name in integrity.MAPPED:
                    LanguageModel(found)
                assert wrong(tmp_path) in ([name], []), data
            except CheckpointError as error:
                said = [str(error)]
        said += [str(each.message) for each in caught if each.category is CheckpointWarning]
        if name == CONFIG and json_of(data) == json_of(whole):
            continue  # white space
        assert len(said) == 1 and (name in said[0] or name == CONFIG) and str(tmp_path) in said[0], said


def json_of(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None


@pytest.mark.model
def test_a_damaged_tagger_does_not_write_by_itself(tmp_path: Path):
    folder = only_config(tmp_path / "tagger")
    whole = (SHIPPED / "punctuation.safetensors").read_bytes()
    (folder / "punctuation.safetensors").write_bytes(whole)
    assert asr.load_punctuator(folder).punctuate("how are you i am fine") == "How are you? I am fine."
    (folder / "punctuation.safetensors").write_bytes(flipped(whole, random.Random(0)))
    with pytest.raises(CheckpointError, match=r"punctuation\.safetensors is not the file that config\.json lists"):
        asr.load_punctuator(folder)


def test_cut_off_and_missing_files_are_named(folder: Path):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(
        CheckpointError, match=rf"has 1000 bytes instead of the {len(whole)} that.*copy the checkpoint again"
    ):
        checkpoint.load(folder)
    (folder / "model.safetensors").write_bytes(whole)
    (folder / LEXICON).write_text("a\tA\n")
    checkpoint.record(folder, LEXICON)
    checkpoint.load(folder)
    (folder / LEXICON).unlink()
    with pytest.warns(CheckpointWarning, match=r"lexicon\.txt is missing: copy the whole"):
        checkpoint.load(folder)
    (folder / LEXICON).mkdir()
    with pytest.warns(CheckpointWarning, match=r"lexicon\.txt"):
        checkpoint.load(folder)


def test_a_missing_graph_is_made_again(folder: Path):
    (folder / "stem.onnx").unlink()
    checkpoint.load(folder)
    assert wrong(folder) == []


def test_what_people_edit_is_a_warning_until_it_is_renewed(folder: Path):
    for name in (LEXICON, CARD):
        (folder / name).write_text("as it was\n")
    checkpoint.record(folder)
    for name in (LEXICON, CARD):
        (folder / name).write_text("as it is\n")
    config = folder / CONFIG
    config.write_text(config.read_text().replace('"beam": 800', '"beam": 700'))
    with pytest.warns(CheckpointWarning) as caught:
        assert checkpoint.load(folder).config.decoding.beam == 700
    assert {str(each.message).split(" ")[0] for each in caught} == {str(folder / name) for name in TEXTS}
    assert all(f"`asr doctor --renew --checkpoint {folder}`" in str(each.message) for each in caught)
    checkpoint.record(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint.load(folder)


def test_other_white_space_in_the_config_is_no_change(folder: Path):
    config = folder / CONFIG
    config.write_text(json.dumps(json.loads(config.read_text())))
    assert wrong(folder) == []


def test_a_checkpoint_of_an_earlier_version_loads_as_it_is(folder: Path):
    config = folder / CONFIG
    data = json.loads(config.read_text())
    del data["files"]
    config.write_text(json.dumps(data))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.load(folder).config.files == {}
    (folder / LEXICON).write_text("a\tA\n")
    checkpoint.record(folder, LEXICON)
    assert set(listed(folder)) == {CONFIG, LEXICON}


def test_saving_again_keeps_what_is_listed_of_other_files(folder: Path):
    (folder / LEXICON).write_text("a\tA\n")
    checkpoint.record(folder, LEXICON)
    small = small_checkpoint(small_model("lstm", 4, layers=2))
    save_checkpoint(folder, small.config, small.weights())
    assert wrong(folder) == [] and LEXICON in listed(folder)
    assert checkpoint.load(folder).config == small.config


def test_a_folder_that_is_no_checkpoint_stays_as_it_is(tmp_path: Path):
    (tmp_path / LEXICON).write_text("a\tA\n")
    checkpoint.record(tmp_path, LEXICON)
    assert [path.name for path in tmp_path.iterdir()] == [LEXICON]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/dev/zero", "model.bin", ""])
def test_only_files_of_a_checkpoint_are_listed(folder: Path, name: str):
    config = folder / CONFIG
    data = json.loads(config.read_text())
    data["files"][name] = data["files"]["stem.onnx"]
    config.write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="is no file of a checkpoint"):
        checkpoint.load(folder)


@pytest.mark.e2e
def test_doctor_names_all_that_is_wrong_and_renews(asr, folder: Path):
    for name in ("model.safetensors", "stem.onnx"):
        (folder / name).write_bytes((folder / name).read_bytes() + b"x")
    status, out, _ = asr("doctor", "--checkpoint", folder)
    plain = "".join(out.split())
    assert status == 1 and "model.safetensorshas" in plain and "stem.onnxhas" in plain
    status, out, _ = asr("doctor", "--renew", "--checkpoint", folder)
    assert (status, out.endswith("lists the files of the checkpoint as they are now.\n")) == (0, True)
    assert wrong(folder) == []
    (folder / CONFIG).write_text("{")
    status, _, err = asr("doctor", "--renew", "--checkpoint", folder)
    assert status == 1 and "cannot be read as JSON" in err
