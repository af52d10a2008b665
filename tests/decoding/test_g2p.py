import itertools
import json
import math
import pickle
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from asr.decoding.g2p import BLANK, G2P, ErrorRates, G2PConfig, prefix_beam_search
from asr.errors import CheckpointError

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "en-small" / "pronunciation.safetensors"


CONFIG = G2PConfig("abc'", ("AH", "B", "K", "S"), embedding=8, hidden=12, layers=1)


def small_model() -> G2P:
    rng = np.random.default_rng(1)
    shapes = CONFIG.shapes().items()
    return G2P(
        CONFIG, {name: rng.normal(0, 0.3, shape).astype(np.float16).astype(np.float32) for name, shape in shapes}
    )


@pytest.fixture(scope="module")
def shipped() -> G2P:
    return G2P.load(SHIPPED)


# --- the file


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    model = small_model()
    model.save(tmp_path / "a.safetensors")
    loaded = G2P.load(tmp_path / "a.safetensors")
    assert loaded.config == model.config and loaded.held_out is None
    for name, values in loaded.weights.items():
        assert values.dtype == np.float32
        assert np.array_equal(values, model.weights[name]), name
    loaded.save(tmp_path / "b.safetensors")
    again = G2P.load(tmp_path / "b.safetensors")
    for word in ("abc", "cab's" * 3, "c"):
        assert loaded.pronounce(word, 3) == again.pronounce(word, 3)
    loaded.held_out = ErrorRates(0.06, 0.26, 6246)
    loaded.save(tmp_path / "c.safetensors")
    assert G2P.load(tmp_path / "c.safetensors").held_out == loaded.held_out


def rewrite(
    path: Path, *, config: object = None, held_out: object = None, drop: str = "", extra: str = "", reshape: str = ""
) -> None:
    tensors = load_file(path)
    tensors.pop(drop, None)
    if extra:
        tensors[extra] = np.zeros(2, np.float16)
    if reshape:
        tensors[reshape] = np.zeros((3, 3), np.float16)
    more = {"held_out": json.dumps(held_out)} if held_out else {}
    save_file(tensors, path, {"config": json.dumps(config or asdict(CONFIG))} | more)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b"not a model" * 100),
        lambda path: path.write_bytes(pickle.dumps({"head.weight": [0.0]})),
        lambda path: save_file(load_file(path), path),
        lambda path: save_file(load_file(path), path, {"config": "{"}),
        lambda path: rewrite(path, config=[1]),
        lambda path: rewrite(path, config={**asdict(CONFIG), "dropout": 0.1}),
        lambda path: rewrite(path, config={**asdict(CONFIG), "hidden": 13}),
        lambda path: rewrite(path, config={**asdict(CONFIG), "hidden": "12"}),
        lambda path: rewrite(path, config={**asdict(CONFIG), "letters": "abc"}),
        lambda path: rewrite(path, held_out=[1]),
        lambda path: rewrite(path, drop="head.bias"),
        lambda path: rewrite(path, extra="tail.bias"),
        lambda path: rewrite(path, reshape="head.weight"),
    ],
    ids=[
        "missing",
        "empty",
        "cut",
        "text",
        "pickle",
        "no-config",
        "no-json",
        "list",
        "unknown-key",
        "other-size",
        "other-type",
        "fewer-letters",
        "errors",
        "tensor-missing",
        "tensor-unknown",
        "tensor-shape",
    ],
)
def test_a_broken_file_is_a_checkpoint_error_that_names_it(tmp_path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "pronunciation.safetensors"
    small_model().save(path)
    G2P.load(path)
    spoil(path)
    with pytest.raises(CheckpointError, match=r"pronunciation\.safetensors") as raised:
        G2P.load(path)
    assert "\n" not in str(raised.value)


# --- the search


def every_collapsed_path(frames: list[list[float]]) -> dict[tuple[int, ...], float]:
    """The definition of CTC: the probability of a label sequence is the sum over all paths that collapse to it."""
    total: defaultdict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(len(frames[0])), repeat=len(frames)):
        label = tuple(token for token, _ in itertools.groupby(path) if token != BLANK)
        total[label] += math.prod(frame[token] for frame, token in zip(frames, path, strict=True))
    return total


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_wide_beam_ranks_as_the_sum_over_all_paths_does(weights: list[list[float]]) -> None:
    frames = [[weight / sum(frame) for weight in frame] for frame in weights]
    exact = every_collapsed_path(frames)
    found = prefix_beam_search(frames, beam=len(exact))
    assert {prefix for prefix, _ in found} == {label for label, p in exact.items() if p > 0}
    best = max(exact.values())
    for prefix, p in found:
        assert p == pytest.approx(exact[prefix] / best)
    assert all(better >= worse - 1e-12 for (_, better), (_, worse) in itertools.pairwise(found))


def test_long_words_do_not_underflow() -> None:
    flat = [[0.34, 0.33, 0.33]] * 1000  # 3 ** -1000 is 0 in double precision
    assert prefix_beam_search(flat, beam=2)[0][1] == pytest.approx(1)


# --- the shipped file


@pytest.mark.parametrize(
    ("word", "phonemes"),
    [
        ("cat", "K AE T"),
        ("stone", "S T OW N"),
        ("running", "R AH N IH NG"),
        ("box", "B AA K S"),
        ("phone", "F OW N"),
        ("ship", "SH IH P"),
        ("nation", "N EY SH AH N"),
        ("night", "N AY T"),
        ("bright", "B R AY T"),
        ("cat's", "K AE T S"),
        ("rill", "R IH L"),
    ],
)
def test_regular_english_words_are_right(shipped: G2P, word: str, phonemes: str) -> None:
    assert shipped.pronounce(word) == [tuple(phonemes.split())]


def test_a_word_with_two_pronunciations_has_both_and_no_other(shipped: G2P) -> None:
    both = {("P", "R", "IH", "N", "T", "IH", "NG"), ("P", "R", "IH", "N", "IH", "NG")}
    assert set(shipped.pronounce("printing", 3)) == both


def test_an_invented_word_sounds_as_it_is_spelt(shipped: G2P) -> None:
    best = " ".join(shipped.pronounce("blorptastic")[0])
    assert best.startswith("B L AO R P T AE S T") and best.endswith("IH K")


def test_n_best_are_different_and_the_first_does_not_depend_on_n(shipped: G2P) -> None:
    for word in ("kubernetes", "nguyen", "live", "shyamalan"):
        three = shipped.pronounce(word, 3)
        assert 2 <= len(three) == len(set(three)) <= 3 and all(three)
        assert shipped.pronounce(word, 2) == three[:2] and shipped.pronounce(word) == three[:1]
    assert len(shipped.pronounce("cat", 3)) == 1  # the others are far less probable


def test_many_words_sound_as_each_alone(shipped: G2P) -> None:
    words = ["nguyen", "", "cat", "mp3", "printing", "Kubernetes", "dog", "tac", "live"] * 20  # more than one batch
    assert shipped.pronounce_all(words, 3) == [shipped.pronounce(word, 3) for word in words]
    assert shipped.pronounce_all([]) == []


def test_only_variants_probable_enough_are_given(shipped: G2P) -> None:
    many, few = shipped.pronounce_all(["nguyen"], 5, 0.0)[0], shipped.pronounce_all(["nguyen"], 5, 0.9)[0]
    assert 1 <= len(few) < len(many) == 5 and many[: len(few)] == few
    assert shipped.pronounce_all(["nguyen"], 5, 1.0)[0] == many[:1]


def test_case_does_not_matter(shipped: G2P) -> None:
    assert shipped.pronounce("RILL") == shipped.pronounce("Rill") == shipped.pronounce("rill")


@pytest.mark.parametrize("word", ["", "mp3", "2024", "naïve", "new york", "co-op", "ярл"])
def test_what_cannot_be_spelt_has_no_pronunciation(shipped: G2P, word: str) -> None:
    assert shipped.pronounce(word, 3) == []


def test_the_shipped_file_is_small_and_has_cmudicts_phonemes(shipped: G2P) -> None:
    assert SHIPPED.stat().st_size <= 1_200_000
    assert len(shipped.config.phonemes) == 39 and not any(
        character.isdigit() for p in shipped.config.phonemes for character in p
    )
    assert shipped.config.letters == "'abcdefghijklmnopqrstuvwxyz"
