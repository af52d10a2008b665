"""A small LSTM language model, and text that it can learn."""

import random

import torch

from asr.decoding.neural_lm import NeuralLMConfig
from asr.training.neural_lm_network import NeuralLMNetwork

WORDS = [f"w{i}" for i in range(60)]


def small_lm(**sizes: int) -> NeuralLMNetwork:
    torch.manual_seed(0)
    return NeuralLMNetwork(NeuralLMConfig(tuple(WORDS), **{"embedding": 96, "hidden": 48} | sizes))


def chains(count: int, seed: int = 0) -> list[str]:
    """Sentences in which word i + 1 always follows word i: only where they start and end is open."""
    rng = random.Random(seed)
    return [" ".join(WORDS[first : first + rng.randint(2, 9)]) for first in rng.choices(range(50), k=count)]
