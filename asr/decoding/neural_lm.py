"""An LSTM language model over words, which judges whole sentences (Mikolov et al. 2010; Sundermeyer et al. 2012).

The frequent words share one softmax and the rare ones sit behind it in clusters (adaptive softmax, Grave et al. 2017,
arXiv 1609.04309). The same tables turn words to vectors at the input (Press & Wolf 2017; Baevski & Auli 2019), so that
a vocabulary of 100 000 words takes a few million weights. Training is in `asr.training.neural_lm`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from asr.atomic import replacing
from asr.errors import CheckpointError

FILE = "neural_lm.safetensors"
END, UNKNOWN = 0, 1  # word numbers: the end of a sentence, which is also before its first word; any other word
CLUSTERS = (24, 5)  # the softmax of the frequent words holds 1/24 of all words, the first cluster those up to 1/5


class NeuralLM(nn.Module):
    """A sentence's words → their probabilities. `words`, most frequent first, are stored in the file with the sizes."""

    def __init__(self, words: Sequence[str], embedding: int = 192, hidden: int = 512, layers: int = 1) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"words": list(words), "embedding": embedding, "hidden": hidden, "layers": layers}
        self.index = {word: number for number, word in enumerate(words, UNKNOWN + 1)}
        size = len(words) + UNKNOWN + 1
        self.rnn = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.project = nn.Linear(hidden, embedding)
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(
            embedding, size, [max(i, size // n) for i, n in enumerate(CLUSTERS, 1)]
        )

    def numbers(self, sentence: Sequence[str]) -> list[int]:
        """Of a sentence's words, and of its end."""
        return [*(self.index.get(word, UNKNOWN) for word in sentence), END]

    def embed(self, words: Tensor) -> Tensor:
        """Word numbers (…) → vectors (…, E): the rows by which the softmax tells the words apart."""
        bounds = self.softmax.cutoffs
        clusters: Any = self.softmax.tail
        vectors = F.embedding(words.clamp(max=bounds[0] - 1), self.softmax.head.weight)
        for (first, last), (narrow, wide) in zip(pairwise(bounds), clusters, strict=True):
            inside = (words >= first) & (words < last)
            vectors[inside] = (F.embedding(words[inside] - first, wide.weight) @ narrow.weight).to(vectors.dtype)
        return vectors * vectors.shape[-1] ** 0.5

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Sentences (B, T) of word numbers, each `lengths` long with its END → natural-log probabilities of all their
        words, one sentence after the other, (sum of lengths,)."""
        real = torch.arange(words.shape[1], device=words.device) < lengths[:, None]
        return self.softmax(self.project(self.hidden(words)[real]), words[real]).output.float()

    def hidden(self, words: Tensor) -> Tensor:
        """(B, T) word numbers → (B, T, hidden), what the words before each of them left behind."""
        before = torch.cat([torch.full_like(words[:, :1], END), words[:, :-1]], dim=1)
        return self.rnn(self.embed(before))[0]

    @torch.inference_mode()
    def score(self, sentences: Sequence[Sequence[str]]) -> list[list[float]]:
        """Natural-log probability of each word of each sentence, and of its end; nan for unknown words.

        N-best sentences share their beginnings, which the softmax sees once. The LSTM sees them with every sentence:
        at each call that computes, other threads run Python, and one call a word would wait for them many times.
        """
        numbers = [self.numbers(sentence) for sentence in sentences]
        words = nn.utils.rnn.pad_sequence([torch.tensor(each) for each in numbers], batch_first=True)
        tree: dict[tuple[int, int], int] = {}  # a node, 0 for the root, and the word that follows → the node after it
        rows: list[int] = []  # where each node is first met
        columns: list[int] = []
        nodes: list[int] = []  # of all the words in a row
        for row, sentence in enumerate(numbers):
            node = 0
            for column, word in enumerate(sentence):
                node = tree.setdefault((node, word), len(tree) + 1)
                if node > len(rows):
                    rows.append(row)
                    columns.append(column)
                nodes.append(node - 1)
        chosen = words[rows, columns]
        scores = self.softmax(self.project(self.hidden(words)[rows, columns]), chosen).output
        scores = scores.masked_fill(chosen == UNKNOWN, float("nan"))[nodes]
        return [each.tolist() for each in scores.split([len(each) for each in numbers])]

    def save(self, path: Path) -> None:
        """Half-precision weights, with words and sizes as metadata; the file appears whole or not at all."""
        tensors = {name: tensor.detach().half().contiguous() for name, tensor in self.state_dict().items()}
        with replacing(path) as part:
            save_file(tensors, part, {"config": json.dumps(self.config)})

    @classmethod
    def load(cls, path: Path) -> NeuralLM:
        """Read what `save` wrote. Raises CheckpointError if the file is missing, broken or of another shape."""
        try:
            with safe_open(path, framework="pt") as file:
                model = cls(**json.loads((file.metadata() or {})["config"]))
                model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{path} is not a usable neural language model ({reason:.200}): "
                "copy the checkpoint again or train it anew."
            ) from error
        return model.eval().requires_grad_(False)
