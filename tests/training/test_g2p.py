"""Training the letter-to-sound network, and what NumPy makes of it."""

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from asr.decoding.g2p import ErrorRates, G2PConfig
from asr.training.g2p import G2PNetwork, error_rates, train

SMALL = {"embedding": 8, "hidden": 12, "layers": 1}


def invented_lexicon(words: int) -> dict[str, list[tuple[str, ...]]]:
    """Words of a language where x is K S, sh is one phoneme, and a last e is silent and changes the vowel before it."""
    choose = random.Random(5)
    short, long = {"a": "AE", "i": "IH", "o": "AA"}, {"a": "EY", "i": "AY", "o": "OW"}
    onsets, codas = ["b", "d", "k", "sh", "s", "bl"], ["t", "n", "x", "sh"]
    sounds = {"x": ("K", "S"), "sh": ("SH",), "bl": ("B", "L")}
    lexicon: dict[str, list[tuple[str, ...]]] = {}
    while len(lexicon) < words:
        spelling, phonemes = "", []
        for _ in range(choose.randint(0, 1)):
            onset, vowel = choose.choice(onsets), choose.choice("aio")
            spelling += onset + vowel
            phonemes += [*sounds.get(onset, (onset.upper(),)), short[vowel]]
        onset, vowel, coda, silent_e = (
            choose.choice(onsets),
            choose.choice("aio"),
            choose.choice(codas),
            choose.choice(["", "e"]),
        )
        phonemes += [
            *sounds.get(onset, (onset.upper(),)),
            (long if silent_e else short)[vowel],
            *sounds.get(coda, (coda.upper(),)),
        ]
        lexicon[spelling + onset + vowel + coda + silent_e] = [tuple(phonemes)]
    return lexicon


def test_numpy_computes_what_pytorch_defines() -> None:
    torch.manual_seed(0)
    network = G2PNetwork(G2PConfig("abc'", ("AH", "B", "K", "S"), embedding=8, hidden=12, layers=2))
    letters = [[0, 1, 2, 3, 0], [3, 3, 1, 0, 2], [1, 1, 1, 1, 1]]
    with torch.inference_mode():
        expected = network.half().float()(torch.tensor(letters)).exp().numpy()
    got = network.trained().probabilities(letters)
    assert got.shape == (3, 15, 5)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny steps on many threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.e2e
@pytest.mark.usefixtures("one_thread")
def test_a_tiny_lexicon_is_learned_without_error() -> None:
    lexicon = invented_lexicon(200)
    word = "shibax"
    lexicon[word] = [("SH", "IH", "B", "AE", "K", "S"), ("SH", "AY", "B", "AE", "K", "S")]
    model, _ = train(lexicon, epochs=60, seed=3, held_out=0.0, embedding=16, hidden=64)
    assert error_rates(model, lexicon) == ErrorRates(0.0, 0.0, len(lexicon))
    assert set(model.pronounce(word, 2)) == set(lexicon[word])


@pytest.mark.usefixtures("one_thread")
def test_held_out_words_are_reported_and_training_repeats_with_its_seed() -> None:
    lexicon = invented_lexicon(100)
    first, rates = train(lexicon, epochs=2, seed=7, held_out=0.2, **SMALL)
    torch.rand(1)  # what others draw does not matter, and training leaves their generator alone
    state = torch.get_rng_state()
    second, again = train(lexicon, epochs=2, seed=7, held_out=0.2, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert rates == again == first.held_out and rates.words == 20
    assert 0 < rates.phoneme_error_rate <= 2 and 0 < rates.word_error_rate <= 1
    for name, values in first.weights.items():
        assert np.array_equal(values, second.weights[name]), name


def test_the_nearest_listed_pronunciation_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = G2PNetwork(G2PConfig("abc", ("AH", "B"), **SMALL)).trained()
    said = {"a": [("AH",)], "b": [("B", "AH")], "c": []}
    monkeypatch.setattr(model, "pronounce_all", lambda words: [said[word] for word in words])
    rates = error_rates(
        model, {"a": [("B", "S"), ("AH",)], "b": [("B", "K", "S", "AH", "AH"), ("B", "S", "AH")], "c": [("K",)]}
    )
    assert rates == ErrorRates(phoneme_error_rate=2 / 5, word_error_rate=2 / 3, words=3)
    assert math.isnan(error_rates(model, {}).word_error_rate)
