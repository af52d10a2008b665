"""Pronunciations of words that the dictionary lacks: hot words, names, new words.

A bidirectional LSTM reads the letters and CTC aligns the phonemes to them: Rao, Peng, Sak & Beaufays 2015,
"Grapheme-to-phoneme conversion using long short-term memory recurrent neural networks" (ICASSP). A word is never
streamed, so the LSTM is a plain bidirectional one. A letter gets several CTC frames, because it may sound as more than
one phoneme ("x" is K S): the last layer gives them all at once, so that the LSTM runs once a letter.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torchaudio.functional
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from asr.errors import CheckpointError

BLANK = 0  # CTC token; phoneme i is token i + 1
BEAM = 16  # prefixes kept a frame
LEAST_TOKEN = 1e-4  # less probable tokens of a frame do not extend a prefix
LEAST_VARIANT = 0.05  # less probable pronunciations, relative to the best, are left out
BATCH_WORDS = 128
PEAK_LEARNING_RATE = 5e-3

Pronunciation = tuple[str, ...]
Lexicon = Mapping[str, Sequence[Pronunciation]]


class G2P(nn.Module):
    """Letters to phonemes. `letters` and `phonemes` say which; both are stored in the file with the sizes."""

    def __init__(
        self,
        letters: str,
        phonemes: Sequence[str],
        embedding: int = 32,
        hidden: int = 128,
        layers: int = 2,
        frames_per_letter: int = 3,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "letters": letters,
            "phonemes": list(phonemes),
            "embedding": embedding,
            "hidden": hidden,
            "layers": layers,
            "frames_per_letter": frames_per_letter,
        }
        self.held_out: ErrorRates | None = None  # on words that it was not trained on
        self.letter_ids = {letter: index for index, letter in enumerate(letters)}
        self.phonemes = tuple(phonemes)
        self.embedding = nn.Embedding(len(letters), embedding)
        self.rnn = nn.LSTM(embedding, hidden, layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, frames_per_letter * (1 + len(phonemes)))

    def forward(self, letters: Tensor) -> Tensor:
        """Letter ids (words, length), words of one length, to emissions (words, length × frames, 1 + phonemes)."""
        hidden, _ = self.rnn(self.embedding(letters))
        return self.head(hidden).reshape(len(letters), -1, 1 + len(self.phonemes)).log_softmax(-1)

    def spell(self, word: str) -> list[int]:
        """Letter ids of `word` in lower case; [] if a character is not one of the letters."""
        ids = [self.letter_ids.get(letter, -1) for letter in word.lower()]
        return [] if -1 in ids else ids

    def pronounce(self, word: str, n: int = 1) -> list[Pronunciation]:
        """Up to `n` different pronunciations, best first; [] for the empty word and for unknown characters."""
        return self.pronounce_all([word], n)[0]

    @torch.inference_mode()
    def pronounce_all(
        self, words: Sequence[str], n: int = 1, least: float = LEAST_VARIANT
    ) -> list[list[Pronunciation]]:
        """As `pronounce`, of many words; the network runs over batches of words of one length.

        Variants less probable than `least` times the best are left out: as words to listen for they would only do harm.
        """
        found: list[list[Pronunciation]] = [[] for _ in words]
        by_length: defaultdict[int, list[tuple[int, list[int]]]] = defaultdict(list)
        for place, word in enumerate(words):
            if ids := self.spell(word):
                by_length[len(ids)].append((place, ids))
        for same in by_length.values():
            for first in range(0, len(same), BATCH_WORDS):
                batch = same[first : first + BATCH_WORDS]
                emissions = self(torch.tensor([ids for _, ids in batch])).exp()
                for (place, _), frames in zip(batch, emissions, strict=True):
                    best = [each for each in prefix_beam_search(frames.tolist(), max(n, BEAM)) if each[0]][:n]
                    found[place] = [
                        tuple(self.phonemes[token - 1] for token in prefix)
                        for prefix, p in best
                        if p >= least * best[0][1]
                    ]
        return found

    def save(self, path: Path) -> None:
        """Write half-precision weights, with the letters, phonemes, sizes and held-out errors as metadata."""
        tensors = {name: tensor.half().contiguous() for name, tensor in self.state_dict().items()}
        errors = {"held_out": json.dumps(asdict(self.held_out))} if self.held_out else {}
        save_file(tensors, path, {"config": json.dumps(self.config)} | errors)

    @classmethod
    def load(cls, path: Path) -> G2P:
        """Read what `save` wrote. Raises CheckpointError if the file is missing, broken or of another shape."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            model = cls(**metadata["config"])
            model.load_state_dict(tensors)
            if "held_out" in metadata:
                model.held_out = ErrorRates(**metadata["held_out"])
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{path} is not a usable letter-to-sound file ({reason}): "
                "download the checkpoint again or train it anew."
            ) from error
        return model.eval()


def prefix_beam_search(frames: Sequence[Sequence[float]], beam: int) -> list[tuple[tuple[int, ...], float]]:
    """CTC prefix beam search (Graves 2012, Hannun et al. 2014) over probabilities (frames, tokens).

    Gives the `beam` best prefixes, best first, each with its probability relative to the best. Inside, a prefix has two
    probabilities: that of the paths which end in blank, and that of those which end in its last token.
    """
    prefixes: dict[tuple[int, ...], list[float]] = {(): [1.0, 0.0]}
    for frame in frames:
        likely = [token for token, p in enumerate(frame) if p > LEAST_TOKEN and token != BLANK]
        grown: defaultdict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for prefix, (in_blank, in_token) in prefixes.items():
            grown[prefix][0] += (in_blank + in_token) * frame[BLANK]
            if prefix:
                grown[prefix][1] += in_token * frame[prefix[-1]]
            for token in likely:
                repeats = prefix[-1:] == (token,)  # a token follows itself only across a blank
                grown[(*prefix, token)][1] += (in_blank if repeats else in_blank + in_token) * frame[token]
        best = sorted(grown.items(), key=lambda item: -sum(item[1]))[:beam]
        scale = sum(best[0][1])  # keeps long words from underflowing
        prefixes = {prefix: [in_blank / scale, in_token / scale] for prefix, (in_blank, in_token) in best}
    return [(prefix, in_blank + in_token) for prefix, (in_blank, in_token) in prefixes.items()]


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """Errors over `words` words, each against the nearest of its listed pronunciations; nan for 0 words."""

    phoneme_error_rate: float
    word_error_rate: float
    words: int

    def __str__(self) -> str:
        return (
            f"{100 * self.phoneme_error_rate:.1f} % of the phonemes and {100 * self.word_error_rate:.1f} % of "
            f"{self.words} words held out are wrong."
        )


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
    G2P. The shipped file was made from CMUdict: `asr lm --train-pronunciation` (`asr.training.dictionary`).
    """
    shuffle = random.Random(seed)
    words = sorted(lexicon)
    shuffle.shuffle(words)
    split = round(held_out * len(words))
    phonemes = sorted({phoneme for listed in lexicon.values() for each in listed for phoneme in each})
    tokens = {phoneme: index + 1 for index, phoneme in enumerate(phonemes)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = G2P("".join(sorted(set("".join(words)))), phonemes, **sizes)
    by_length: defaultdict[int, list[tuple[list[int], list[int]]]] = defaultdict(list)
    for word in words[split:]:
        by_length[len(word)] += [
            (model.spell(word), [tokens[phoneme] for phoneme in listed]) for listed in lexicon[word]
        ]

    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
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
            emissions = model(torch.tensor([letters for letters, _ in batch])).transpose(0, 1)
            lengths = torch.tensor([len(target) for _, target in batch])
            targets = torch.tensor([token for _, target in batch for token in target])
            loss = ctc(emissions, targets, torch.full_like(lengths, len(emissions)), lengths)
            optimizer.zero_grad()
            (loss / BATCH_WORDS).backward()  # a batch that is not full counts less
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    model.half().float().eval()
    model.held_out = error_rates(model, {word: lexicon[word] for word in words[:split]})
    return model, model.held_out
