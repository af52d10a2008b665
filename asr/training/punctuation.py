"""Text → a tagger of punctuation and capitals: `asr punctuate --train`.

The folder holds

    punctuation.safetensors   the newest tagger, for `asr.text.punctuator`
    held_out/                 documents of each text that were not learned from, as they are
    punctuation.text          while it is trained: the labelled text
    punctuation.state         while it is trained: everything that going on needs, replaced as a whole
"""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from asr.errors import TrainingError
from asr.model.checkpoint import record
from asr.model.hardware import fast_in_bfloat16, training_device
from asr.text.labels import CASES, IGNORE, MARKS
from asr.text.punctuator import BREAK, FILE, UNKNOWN, Punctuator, PunctuatorConfig, grams, pause_input
from asr.text.punctuator import read as read_tagger
from asr.text.punctuator import save as save_tagger
from asr.training.punctuation_data import LENGTH, ROWS, Batches, Corpus, Stretch, read

TEXT, STATE = "punctuation.text", "punctuation.state"
WORDS, WIDTH = 20_000, 128  # that have vectors of their own; numbers in each
BUCKETS = 16_384  # vectors that character n-grams share
HIDDEN, LAYERS = 128, 2  # if nothing else is said
DROPOUT = 0.1
FORGOTTEN = 0.04  # of a batch's words are taken for unknown ones
LEARNING_RATE = 3e-3  # at its peak, after the warm-up
GOING_ON = 0.5  # of it for a tagger that has learned already
WARMUP = 200  # updates
DECAY = 0.7  # of the updates: down to FINAL of the peak, in a straight line
FINAL = 0.02
CASE_WEIGHT = 0.5  # of the cases in the loss
CLIP = 1.0  # largest norm of the gradient
SAVE_EVERY = 200  # updates
REPORT_EVERY = 50


class Tagger(nn.Module):
    """The network of `asr.text.punctuator`."""

    def __init__(self, words: int, width: int, buckets: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words + 2, width)
        self.pieces = nn.EmbeddingBag(buckets, width, mode="mean")
        for each in (self.words, self.pieces):
            nn.init.normal_(each.weight, std=0.5)
        self.rnn = nn.LSTM(width + 2, hidden, layers, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.marks, self.cases = nn.Linear(2 * hidden, len(MARKS)), nn.Linear(2 * hidden, len(CASES))

    def forward(
        self, rows: Tensor, pieces: Tensor, starts: Tensor, place: Tensor, pauses: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores of marks and cases, (B, T, …).

        The n distinct words: `rows` (n,), and their n-grams one after the other in `pieces`, of each from `starts`
        (n,); which of them stands where: `place` (B, T); `pauses` (B, T, 2) as `pause_input` gives them.
        """
        distinct = self.words(rows)
        distinct = distinct + self.pieces(pieces, starts) * (rows != BREAK).unsqueeze(1)
        hidden, _ = self.rnn(torch.cat([distinct[place], pauses], dim=-1))
        hidden = self.dropout(hidden)
        return self.marks(hidden), self.cases(hidden)

    def weights(self) -> dict[str, np.ndarray]:
        """As `Punctuator` takes them."""
        found = {"words": self.words.weight, "pieces": self.pieces.weight}
        for name, head in (("marks", self.marks), ("cases", self.cases)):
            found |= {name: head.weight, f"{name}.bias": head.bias}
        for layer in range(self.rnn.num_layers):
            for direction, suffix in (("forward", ""), ("backward", "_reverse")):
                inputs, states, *biases = (
                    getattr(self.rnn, f"{name}_l{layer}{suffix}")
                    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                )
                found |= {
                    f"{layer}.{direction}.input": inputs,
                    f"{layer}.{direction}.state": states,
                    f"{layer}.{direction}.bias": sum(biases),
                }
        return {name: values.detach().float().cpu().numpy() for name, values in found.items()}

    @torch.no_grad()
    def copy(self, weights: Mapping[str, np.ndarray], hidden: int) -> None:
        """Take over such `weights` of a tagger that is `hidden` wide, at most as wide as this one.

        What is wider is random where it reads, and nobody listens to it yet: the tagger says what the narrow one says.
        """
        given = {name: torch.from_numpy(values) for name, values in weights.items()}
        self.words.weight.copy_(given["words"])
        self.pieces.weight.copy_(given["pieces"])
        known = torch.cat([torch.arange(hidden), torch.arange(hidden) + self.rnn.hidden_size])  # of both directions
        for name, head in (("marks", self.marks), ("cases", self.cases)):
            head.weight.zero_()[:, known] = given[name]
            head.bias.copy_(given[f"{name}.bias"])
        rows = (torch.arange(4)[:, None] * self.rnn.hidden_size + torch.arange(hidden)).flatten()  # of the four gates
        for layer in range(self.rnn.num_layers):
            for direction, suffix in (("forward", ""), ("backward", "_reverse")):
                inputs, states, bias, other_bias = (
                    getattr(self.rnn, f"{name}_l{layer}{suffix}")
                    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                )
                for weight, part, columns in (
                    (inputs, "input", known if layer else torch.arange(inputs.shape[1])),
                    (states, "state", torch.arange(hidden)),
                ):
                    weight[rows] = 0
                    weight[rows[:, None], columns] = given[f"{layer}.{direction}.{part}"]
                bias[rows] = given[f"{layer}.{direction}.bias"]
                other_bias[rows] = 0


@dataclass(frozen=True)
class Progress:
    """Where a training stands; losses are means over the last updates, in nats a word."""

    update: int
    updates: int
    marks_loss: float
    cases_loss: float
    words_per_second: float


@dataclass
class TaggerTraining:
    """All that training carries from update to update."""

    corpus: Corpus
    language: str
    updates: int
    device: torch.device
    hidden: int = HIDDEN
    update: int = 0
    going_on: bool = False  # from a tagger that has learned already

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.batches = Batches(self.corpus)
        self.vocabulary = self.batches.frequent[:WORDS]
        self.rows = np.full(len(self.corpus.words), UNKNOWN)
        self.rows[self.vocabulary] = np.arange(len(self.vocabulary)) + UNKNOWN + 1
        self.grams: dict[int, list[int]] = {}
        self.tagger = Tagger(len(self.vocabulary), WIDTH, BUCKETS, self.hidden, LAYERS).to(self.device)
        self.optimizer = torch.optim.AdamW(self.tagger.parameters(), betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def inputs(self, drawn: Stretch, forget: float = 0.0) -> tuple[Tensor, ...]:
        """A batch as the tagger takes it; so many of its distinct words are taken for unknown ones."""
        distinct, place = np.unique(drawn.words, return_inverse=True)
        rows = np.where(distinct < 0, BREAK, self.rows[distinct])
        luck = np.random.default_rng(self.update).random(len(rows))
        rows = np.where((luck < forget) & (rows > UNKNOWN), UNKNOWN, rows)
        pieces = [self._grams(number) for number in distinct.tolist()]
        starts = np.cumsum([0, *map(len, pieces[:-1])])
        arrays = rows, np.concatenate(pieces), starts, place.reshape(drawn.words.shape), pause_input(drawn.pauses)
        return tuple(torch.from_numpy(np.ascontiguousarray(each)).to(self.device) for each in arrays)

    def _grams(self, number: int) -> list[int]:
        if number not in self.grams:
            self.grams[number] = grams(self.corpus.words[number], BUCKETS) if number >= 0 else [0]
        return self.grams[number]

    def step(self) -> tuple[float, float]:
        """One update → the losses of marks and of cases."""
        drawn = self.batches.batch(self.update)
        torch.manual_seed(self.update)  # of the dropout, so that a resumed training is the same
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.update, self.updates) * (GOING_ON if self.going_on else 1.0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast_in_bfloat16(self.device)):
            scores = self.tagger(*self.inputs(drawn, FORGOTTEN))
        marks, cases = (
            nn.functional.cross_entropy(
                score.float().flatten(0, 1), torch.from_numpy(labels).flatten(), ignore_index=IGNORE
            )
            for score, labels in zip(scores, (drawn.marks, drawn.cases), strict=True)
        )
        self.optimizer.zero_grad()
        (marks + CASE_WEIGHT * cases).backward()
        if math.isfinite(nn.utils.clip_grad_norm_(self.tagger.parameters(), CLIP).item()):
            self.optimizer.step()
        self.update += 1
        return marks.item(), cases.item()

    def start_from(self, config: PunctuatorConfig, weights: Mapping[str, np.ndarray]) -> None:
        """Take over a tagger that is at most as wide. Words that it does not know begin as unknown ones."""
        rows = {word: row for row, word in enumerate(config.words, UNKNOWN + 1)}
        known = [rows.get(self.corpus.words[number], UNKNOWN) for number in self.vocabulary]
        self.tagger.copy({**weights, "words": weights["words"][[BREAK, UNKNOWN, *known]]}, config.hidden)
        self.going_on = True

    def save(self, folder: Path) -> None:
        """The tagger, and the state; a killed process leaves the old one or the new one of each."""
        corpus = self.corpus
        facts = {"updates": self.update, "words": {name: len(text.words) for name, text in corpus.texts.items()}}
        config = PunctuatorConfig(
            self.language,
            [corpus.words[number] for number in self.vocabulary],
            WIDTH,
            BUCKETS,
            self.hidden,
            LAYERS,
            corpus.marks,
            corpus.forms,
            corpus.abbreviations,
            facts,
        )
        part = folder / f"{FILE}.part"
        save_tagger(part, config, self.tagger.weights())
        os.replace(part, folder / FILE)
        record(folder, FILE)
        state = {
            "tagger": self.tagger.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "update": self.update,
            "updates": self.updates,
            "language": self.language,
            "hidden": self.hidden,
            "going_on": self.going_on,
        }
        part = folder / f"{STATE}.part"
        torch.save(state, part)
        os.replace(part, folder / STATE)

    @classmethod
    def restore(cls, folder: Path, device: str) -> TaggerTraining:
        """Go on from what `save` left. Raises TrainingError where there is nothing, or half of it."""
        place = torch.device(training_device(device))
        try:
            state = torch.load(folder / STATE, map_location=place, weights_only=True)
            corpus = Corpus.load(folder / TEXT)
            facts = (state[name] for name in ("hidden", "update", "going_on"))
            training = cls(corpus, state["language"], state["updates"], place, *facts)
            training.tagger.load_state_dict(state["tagger"])
            training.optimizer.load_state_dict(state["optimizer"])
        except FileNotFoundError as error:
            raise TrainingError(
                f"{folder / STATE} is not there, so there is nothing to resume: leave out --resume."
            ) from error
        except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise TrainingError(
                f"{folder / STATE} is broken ({' '.join(str(error).split())[:120]}): start in another folder."
            ) from error
        return training


def learning_rate(update: int, updates: int) -> float:
    """Up in a straight line, level, down in a straight line."""
    falling = (updates - update) / (DECAY * updates)
    return LEARNING_RATE * min(1.0, (update + 1) / WARMUP) * min(1.0, max(FINAL, falling))


def begin(
    texts: Sequence[Path],
    folder: Path,
    language: str,
    updates: int,
    device: str,
    report: Callable[[str, int], None] = lambda name, words: None,
    hidden: int = HIDDEN,
    init: Path | None = None,
) -> TaggerTraining:
    """Read the texts and make a training of them, in a folder without one; `device` may be "auto"; with `init`, it
    begins with the tagger of that checkpoint, which may be narrower than `hidden`. Raises TrainingError, and
    CheckpointError for `init`."""
    if (folder / STATE).exists():
        raise TrainingError(f"{folder / STATE} is of a training that has not ended: go on with --resume, or delete it.")
    learned = learned_tagger(init / FILE, hidden) if init else None
    corpus = read(texts, language, folder / "held_out", report)
    corpus.save(folder / TEXT)
    training = TaggerTraining(corpus, language, updates, torch.device(training_device(device)), hidden)
    if learned:
        training.start_from(*learned)
    return training


def learned_tagger(path: Path, hidden: int) -> tuple[PunctuatorConfig, dict[str, np.ndarray]]:
    """A tagger's file, to go on from at a width of `hidden`. Raises CheckpointError where there is none, TrainingError
    where it is wider or has other sizes than what is trained here."""
    Punctuator.load(path)  # which says what is wrong with the file
    config, weights = read_tagger(path)
    if (config.width, config.buckets, config.layers) != (WIDTH, BUCKETS, LAYERS):
        raise TrainingError(f"{path} has other sizes than a tagger that is trained now: leave out --init.")
    if config.hidden > hidden:
        raise TrainingError(
            f"{path} is {config.hidden} wide, more than {hidden}: give --hidden {config.hidden} or more."
        )
    return config, weights


def train(training: TaggerTraining, folder: Path, report: Callable[[Progress], None] = lambda progress: None) -> None:
    """Up to the last update; `report` is told how it goes on. In the end only the tagger and the held-out documents
    stay in the folder."""
    losses: list[tuple[float, float]] = []
    begun = time.perf_counter()
    while training.update < training.updates:
        losses.append(training.step())
        last = training.update == training.updates
        if training.update % REPORT_EVERY == 0 or last:
            marks, cases = np.mean(losses, axis=0)
            words = len(losses) * ROWS * LENGTH
            report(Progress(training.update, training.updates, marks, cases, words / (time.perf_counter() - begun)))
            losses, begun = [], time.perf_counter()
        if training.update % SAVE_EVERY == 0 or last:
            training.save(folder)
    for name in (TEXT, STATE):
        (folder / name).unlink(missing_ok=True)
