"""The LSTM language model of `asr.decoding.neural_lm` in PyTorch, where it is trained."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr.decoding.neural_lm import END, NARROWING, NeuralLM, NeuralLMConfig


class NeuralLMNetwork(nn.Module):
    def __init__(self, config: NeuralLMConfig) -> None:
        super().__init__()
        self.config = config
        self.rnn = nn.LSTM(config.embedding, config.hidden, config.layers, batch_first=True)
        self.project = nn.Linear(config.hidden, config.embedding)
        *cutoffs, size = config.bounds
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(config.embedding, size, cutoffs, div_value=NARROWING)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Sentences (B, T) of word numbers, each `lengths` long with its END → natural-log probabilities of all their
        words, one sentence after the other, (sum of lengths,)."""
        real = torch.arange(words.shape[1], device=words.device) < lengths[:, None]
        before = torch.cat([torch.full_like(words[:, :1], END), words[:, :-1]], dim=1)
        hidden, _ = self.rnn(self.embed(before))
        return self.softmax(self.project(hidden[real]), words[real]).output.float()

    def embed(self, words: Tensor) -> Tensor:
        """Word numbers (…) → vectors (…, E): the rows by which the softmax tells the words apart."""
        bounds = self.softmax.cutoffs
        clusters: Any = self.softmax.tail
        vectors = F.embedding(words.clamp(max=bounds[0] - 1), self.softmax.head.weight)
        for (first, last), (narrow, wide) in zip(pairwise(bounds), clusters, strict=True):
            inside = (words >= first) & (words < last)
            vectors[inside] = (F.embedding(words[inside] - first, wide.weight) @ narrow.weight).to(vectors.dtype)
        return vectors * vectors.shape[-1] ** 0.5

    @classmethod
    def of(cls, trained: NeuralLM) -> NeuralLMNetwork:
        """A model in use, to be trained on."""
        network = cls(trained.config)
        network.load_state_dict({name: torch.from_numpy(np.array(each)) for name, each in trained.weights.items()})
        return network

    def trained(self) -> NeuralLM:
        """For use."""
        return NeuralLM(
            self.config, {name: each.detach().float().cpu().numpy() for name, each in self.state_dict().items()}
        )
