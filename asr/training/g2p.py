"""Training the letter-to-sound network: the network of `asr.decoding.g2p` in PyTorch, and its errors."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
import torchaudio.functional
from torch import Tensor, nn

from asr.decoding.g2p import BATCH_WORDS, BLANK, G2P, ErrorRates, G2PConfig, Pronunciation

PEAK_LEARNING_RATE = 5e-3

Lexicon = Mapping[str, Sequence[Pronunciation]]


class G2PNetwork(nn.Module):
    def __init__(self, config: G2PConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(len(config.letters), config.embedding)
        self.rnn = nn.LSTM(config.embedding, config.hidden, config.layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * config.hidden, config.frames_per_letter * config.tokens)

    def forward(self, letters: Tensor) -> Tensor:
        """Letter ids (words, length), words of one length, to emissions (words, length × frames, tokens)."""
        hidden, _ = self.rnn(self.embedding(letters))
        return self.head(hidden).reshape(len(letters), -1, self.config.tokens).log_softmax(-1)

    def trained(self) -> G2P:
        """For use, its weights rounded as the file rounds them."""
        return G2P(self.config, {name: each.half().float().numpy() for name, each in self.state_dict().items()})


def error_rates(model: G2P, lexicon: Lexicon) -> ErrorRates:
    """Errors of the best pronunciation of every word of `lexicon`."""
    errors = phonemes = wrong = 0
    guesses = model.pronounce_all(list(lexicon))
    for pronunciations, guess in zip(lexicon.values(), guesses, strict=True):
        best = (guess or [()])[0]
        distance, length = min(
            (torchaudio.functional.edit_distance(best, listed), len(listed)) for listed in pronunciations
        )
        errors, phonemes, wrong = errors + distance, phonemes + length, wrong + (distance > 0)
    if not lexicon:
        return ErrorRates(float("nan"), float("nan"), 0)
    return ErrorRates(errors / phonemes, wrong / len(lexicon), len(lexicon))


def train(
    lexicon: Lexicon, *, epochs: int = 11, seed: int = 0, held_out: float = 0.05, **sizes: int
) -> tuple[G2P, ErrorRates]:
    """Train on `lexicon` (lower-case word to pronunciations) less the fraction `held_out` of its words, on the CPU.

    Gives the model, its weights rounded as `save` rounds them, and its errors on the words held out. `sizes` go to
    G2PConfig. The shipped file was made from CMUdict: `asr lm --train-pronunciation` (`asr.training.dictionary`).
    """
    shuffle = random.Random(seed)
    words = sorted(lexicon)
    shuffle.shuffle(words)
    split = round(held_out * len(words))
    phonemes = sorted({phoneme for listed in lexicon.values() for each in listed for phoneme in each})
    tokens = {phoneme: index + 1 for index, phoneme in enumerate(phonemes)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = G2PNetwork(G2PConfig("".join(sorted(set("".join(words)))), tuple(phonemes), **sizes))
    by_length: defaultdict[int, list[tuple[list[int], list[int]]]] = defaultdict(list)
    for word in words[split:]:
        by_length[len(word)] += [
            (network.config.spell(word), [tokens[phoneme] for phoneme in listed]) for listed in lexicon[word]
        ]

    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = epochs * sum(-(-len(examples) // BATCH_WORDS) for examples in by_length.values())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.2)
    ctc = nn.CTCLoss(BLANK, reduction="sum", zero_infinity=True)  # infinite: "fyi" has more phonemes than frames
    for _ in range(epochs):
        batches = []  # of words of one length: nothing is padded
        for examples in by_length.values():
            shuffle.shuffle(examples)
            batches += [examples[i : i + BATCH_WORDS] for i in range(0, len(examples), BATCH_WORDS)]
        shuffle.shuffle(batches)
        for batch in batches:
            emissions = network(torch.tensor([letters for letters, _ in batch])).transpose(0, 1)
            lengths = torch.tensor([len(target) for _, target in batch])
            targets = torch.tensor([token for _, target in batch for token in target])
            loss = ctc(emissions, targets, torch.full_like(lengths, len(emissions)), lengths)
            optimizer.zero_grad()
            (loss / BATCH_WORDS).backward()  # a batch that is not full counts less
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    model = network.trained()
    model.held_out = error_rates(model, {word: lexicon[word] for word in words[:split]})
    return model, model.held_out
