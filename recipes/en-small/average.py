"""The mean of two language models' weights: python recipes/en-small/average.py FIRST SECOND OUT (neural_lm.safetensors)

Where SECOND went on from FIRST, the mean keeps most of what each knows (Wortsman et al. 2022, "Model soups", ICML).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from asr.decoding.neural_lm import NeuralLM


def main(first: Path, second: Path, out: Path) -> None:
    one, other = NeuralLM.load(first), NeuralLM.load(second)
    if one.config != other.config:
        sys.exit(f"{first} and {second} differ in words or size, so they have no mean.")
    NeuralLM(
        one.config,
        {
            name: np.mean([np.asarray(each, np.float32), other.weights[name]], axis=0)
            for name, each in one.weights.items()
        },
    ).save(out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
