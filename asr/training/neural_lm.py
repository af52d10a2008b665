"""Text → an LSTM language model: `asr lm --neural`.

Each sentence stands for itself, as it does when an utterance is judged. Sentences of like lengths share a batch, so
that next to nothing is padding. The folder holds

    neural_lm.safetensors   the newest model
    neural_lm.text          while it is trained: the text as word numbers
    neural_lm.state         while it is trained: everything that going on needs, replaced as a whole
"""
from __future__ import annotations

import math
import os
import pickle
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.table import Table
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asr.decoding.neural_lm import FILE, UNKNOWN, NeuralLM
from asr.errors import LanguageModelError, TrainingError
from asr.evaluation.evaluate import markdown
from asr.model import checkpoint as checkpoints
from asr.model.hardware import fast_in_bfloat16, training_device
from asr.training.ngram import Fit, Withheld, add_row, most_frequent, read_tests, read_vocabulary, separate

TEXT, STATE = "neural_lm.text", "neural_lm.state"
BATCH_WORDS = 2048      # of an update
LONGEST = 60            # words; a longer sentence is cut
LEARNING_RATE = 3e-3    # at its peak: warm-up, then a cosine to FINAL of it
FINAL = 0.01
WARMUP = 200            # updates
CLIP = 1.0              # largest norm of the gradient
SAVE_EVERY = 250        # updates
JUDGED = 2000           # sentences held out that the perplexity during training is of

Say = Callable[[str], None]


@dataclass(frozen=True)
class Text:
    """Sentences of word numbers (int32), one after the other, each with its END; `starts` has one place more."""

    words: Tensor
    starts: Tensor

    @classmethod
    def of(cls, model: NeuralLM, sentences: Iterable[str]) -> Text:
        words, starts = array("i"), [0]
        for sentence in sentences:
            said = sentence.split()
            for first in range(0, len(said), LONGEST):
                words.extend(model.numbers(said[first:first + LONGEST]))
                starts.append(len(words))
        return cls(torch.from_numpy(np.array(words, dtype=np.int32)), torch.tensor(starts))

    def batches(self, seed: int) -> list[Tensor]:
        """Indices of sentences, each once: in random order those of one length, in random order the batches."""
        generator = torch.Generator().manual_seed(seed)
        lengths = self.starts.diff()
        order = torch.randperm(len(lengths), generator=generator)
        order = order[lengths[order].argsort(stable=True)]
        number = (lengths[order].cumsum(0) - 1) // BATCH_WORDS
        found = order.split(number.unique_consecutive(return_counts=True)[1].tolist())
        return [found[i] for i in torch.randperm(len(found), generator=generator)]

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Word numbers (B, T) and lengths (B,), as `NeuralLM` takes them."""
        sentences = [self.words[self.starts[i]:self.starts[i + 1]] for i in indices]
        lengths = self.starts.diff()[indices]
        return nn.utils.rnn.pad_sequence(sentences, batch_first=True).long().to(device), lengths.to(device)


@torch.inference_mode()
def fit(model: NeuralLM, text: Text) -> Fit:
    """How well the model foretells a text."""
    found = Fit(sentences=len(text.starts) - 1, words=len(text.words) - len(text.starts) + 1)
    device = model.project.weight.device
    for indices in text.batches(0) if found.sentences else ():
        words, lengths = text.batch(indices, device)
        scores = model(words, lengths)
        said = torch.cat([row[:n] for row, n in zip(words, lengths.tolist(), strict=True)])
        found.unknown += int((said == UNKNOWN).sum())
        found.log10 += float(scores[said != UNKNOWN].sum()) / math.log(10)
    return found


@dataclass
class Run:
    """All that training carries from update to update."""

    model: NeuralLM
    optimizer: torch.optim.Optimizer
    updates: int
    update: int = 0

    @classmethod
    def begin(cls, model: NeuralLM, updates: int) -> Run:
        optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        return cls(model, optimizer, updates)

    def step(self, words: Tensor, lengths: Tensor) -> float:
        """One update → its loss, the mean negative log-probability of a word."""
        rate = learning_rate(self.update, self.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(words.device.type, torch.bfloat16, enabled=fast_in_bfloat16(words.device)):
            loss = -self.model(words, lengths).mean()
        self.optimizer.zero_grad()
        loss.backward()
        if math.isfinite(nn.utils.clip_grad_norm_(self.model.parameters(), CLIP).item()):
            self.optimizer.step()
        self.update += 1
        return loss.item()

    def save(self, folder: Path) -> None:
        """The model, and the state; a killed process leaves the old one or the new one of each."""
        self.model.save(folder / FILE)
        state = {"config": self.model.config, "model": self.model.state_dict(), "updates": self.updates,
                 "optimizer": self.optimizer.state_dict(), "update": self.update}
        part = folder / f"{STATE}.part"
        torch.save(state, part)
        os.replace(part, folder / STATE)

    @classmethod
    def restore(cls, folder: Path, device: torch.device) -> Run:
        """Go on from what `save` left. Raises TrainingError where there is nothing, or half of it."""
        try:
            state = torch.load(folder / STATE, map_location=device, weights_only=True)
            run = cls.begin(NeuralLM(**state["config"]).to(device), state["updates"])
            run.model.load_state_dict(state["model"])
            run.optimizer.load_state_dict(state["optimizer"])
            run.update = state["update"]
        except FileNotFoundError as error:
            raise TrainingError(f"{folder / STATE} is not there, so there is nothing to resume: leave out "
                                "--resume.") from error
        except (RuntimeError, KeyError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise TrainingError(f"{folder / STATE} is broken ({' '.join(str(error).split())[:120]}): start again "
                                "without --resume.") from error
        return run


def learning_rate(update: int, updates: int) -> float:
    rise = min(1.0, (update + 1) / WARMUP)
    return LEARNING_RATE * rise * (FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * update / updates)))


def train(run: Run, text: Text, held_out: Text, folder: Path, say: Say = lambda line: None) -> None:
    """Make the run's remaining updates, leaving model and state in the folder every `SAVE_EVERY` of them."""
    device = run.model.project.weight.device
    epoch, batches = -1, text.batches(0)
    loss, words, begun = 0.0, 0, time.perf_counter()
    while run.update < run.updates:
        if run.update // len(batches) != epoch:
            epoch = run.update // len(batches)
            batches = text.batches(epoch)  # as many as in any other epoch
        batch = text.batch(batches[run.update % len(batches)], device)
        new = run.step(*batch)
        loss = new if not loss else 0.98 * loss + 0.02 * new
        words += int(batch[1].sum())
        if run.update % SAVE_EVERY == 0 or run.update == run.updates:
            run.save(folder)
            say(f"{run.update}/{run.updates}: perplexity {math.exp(loss):.1f}, held out "
                f"{fit(run.model, held_out).perplexity:.1f}, {words / (time.perf_counter() - begun):.0f} words/s")
            words, begun = 0, time.perf_counter()


def read(texts: Sequence[Path], folder: Path, vocabulary: int | list[str], withheld: Withheld, language: str,
         say: Say = lambda line: None) -> tuple[NeuralLM, Text, Text]:
    """Texts → a model of their vocabulary, not trained yet; the text to learn from, and that held out; both are kept
    in the folder. Raises LanguageModelError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        learn, hold = Path(name) / "learn.txt", Path(name) / "hold.txt"
        corpus = separate(texts, withheld, language, learn, hold)
        words = most_frequent(corpus.counts, vocabulary) if isinstance(vocabulary, int) else vocabulary
        say(f"Text: {corpus.learnt} sentences, {corpus.counts.total()} words; {corpus.held_out} sentences held out, "
            f"{corpus.withheld} withheld. Vocabulary: {len(words)} words.")
        torch.manual_seed(0)
        model = NeuralLM(words)
        with learn.open(encoding="utf-8") as learnt, hold.open(encoding="utf-8") as held:
            text, held_out = Text.of(model, learnt), Text.of(model, islice(held, JUDGED))
    save_file({"words": text.words, "starts": text.starts, "held_out.words": held_out.words,
               "held_out.starts": held_out.starts}, folder / f"{TEXT}.part")
    os.replace(folder / f"{TEXT}.part", folder / TEXT)
    return model, text, held_out


def run(texts: Sequence[Path], folder: Path, vocabulary: str, without: Sequence[Path], split: str,
        checkpoint: str | None, epochs: float | None, resume: bool, device: str) -> None:
    """`asr lm --neural`. Raises LanguageModelError, TrainingError, CheckpointError and ManifestError."""
    device = training_device(device)
    language = checkpoints.read_config(checkpoints.beside(folder, checkpoint) / "config.json").language
    tests = read_tests(without, split, language)
    if resume:
        training = Run.restore(folder, torch.device(device))
        try:
            kept = load_file(folder / TEXT)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{folder / TEXT} is missing or broken: start again without --resume.") from error
        text, held_out = (Text(kept[f"{part}words"], kept[f"{part}starts"]) for part in ("", "held_out."))
    elif (folder / STATE).exists():
        raise TrainingError(f"{folder / STATE} is of a training that has not ended: go on with --resume, or delete it.")
    elif not texts:
        raise LanguageModelError("Give texts to learn from.")
    else:
        words = int(vocabulary) if vocabulary.isdecimal() else read_vocabulary(Path(vocabulary))
        withheld = Withheld(sentence for members in tests.values() for sentence in members)
        model, text, held_out = read(texts, folder, words, withheld, language, print)
        training = Run.begin(model.to(device), len(text.batches(0)))
    if epochs:
        training.updates = max(1, training.update, round(epochs * len(text.batches(0))))
    train(training, text, held_out, folder, print)
    table = Table("", "sentences", "words", "unknown %", "perplexity", box=box.MARKDOWN)
    add_row(table, "text held out", fit(training.model, held_out))
    for title, members in tests.items():
        add_row(table, title, fit(training.model, Text.of(training.model, members)))
    print(markdown(table))
    for name in (TEXT, STATE):
        (folder / name).unlink()
