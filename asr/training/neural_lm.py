"""Text → an LSTM language model: `asr lm --neural`.

Each sentence stands for itself, as it does when an utterance is scored. Sentences of like lengths share a batch, so
that next to nothing is padding. The folder holds

    neural_lm.safetensors   the newest model
    neural_lm.text          while it is trained: the text as word numbers
    neural_lm.state         while it is trained: everything that --resume needs, replaced as a whole
"""

from __future__ import annotations

import math
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asr.atomic import replacing
from asr.decoding.neural_lm import FILE, UNKNOWN, NeuralLM, NeuralLMConfig
from asr.errors import LanguageModelError, TrainingError
from asr.model.checkpoint import record
from asr.model.hardware import fast_in_bfloat16, training_device
from asr.schema import build
from asr.training.neural_lm_network import NeuralLMNetwork
from asr.training.ngram import HELD_OUT_TEXT, Corpus, Fit, Withheld, most_frequent, separate
from asr.training.resume import reading_state, write_state
from asr.training.schedule import learning_rate

TEXT, STATE = "neural_lm.text", "neural_lm.state"
BATCH_WORDS = 2048  # of an update
MAX_SENTENCE_WORDS = 60  # a longer sentence is cut
LEARNING_RATE = 3e-3  # at its peak: warm-up, then a cosine; a quarter of it for a model that was trained before
WARMUP_UPDATES = 200
CLIP = 1.0  # largest norm of the gradient
SAVE_EVERY_UPDATES = 250
VALIDATION_SENTENCES = 2000  # held out, that the perplexity during training is of

Say = Callable[[str], None]


@dataclass(frozen=True)
class Text:
    """Sentences of word numbers (int32), one after the other, each with its END; `starts` has one place more."""

    words: Tensor
    starts: Tensor

    @classmethod
    def of(cls, vocabulary: NeuralLMConfig, sentences: Iterable[str]) -> Text:
        words, starts = array("i"), [0]
        for sentence in sentences:
            said = sentence.split()
            for first in range(0, len(said), MAX_SENTENCE_WORDS):
                words.extend(vocabulary.numbers(said[first : first + MAX_SENTENCE_WORDS]))
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
        """Word numbers (B, T) and lengths (B,), as `NeuralLMNetwork` takes them."""
        sentences = [self.words[self.starts[i] : self.starts[i + 1]] for i in indices]
        lengths = self.starts.diff()[indices]
        return nn.utils.rnn.pad_sequence(sentences, batch_first=True).long().to(device), lengths.to(device)


@torch.inference_mode()
def fit(model: NeuralLMNetwork, text: Text) -> Fit:
    """How well the model predicts a text."""
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
class LMTrainingState:
    """All that training carries from update to update."""

    model: NeuralLMNetwork
    optimizer: torch.optim.Optimizer
    updates: int
    peak: float  # of the learning rate
    update: int = 0

    @classmethod
    def begin(cls, model: NeuralLMNetwork, updates: int, peak: float | None = None) -> LMTrainingState:
        optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        return cls(model, optimizer, updates, peak or LEARNING_RATE)

    def step(self, words: Tensor, lengths: Tensor) -> float:
        """One update → its loss, the mean negative log-probability of a word."""
        rate = learning_rate(self.update, self.updates, peak=self.peak, warmup=WARMUP_UPDATES)
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
        """The model, and the state."""
        self.model.trained().save(folder / FILE)
        record(folder, FILE)
        write_state(
            folder / STATE,
            {
                "config": asdict(self.model.config),
                "model": self.model.state_dict(),
                "updates": self.updates,
                "peak": self.peak,
                "optimizer": self.optimizer.state_dict(),
                "update": self.update,
            },
        )

    @classmethod
    def restore(cls, folder: Path, device: torch.device) -> LMTrainingState:
        """Go on from what `save` left. Raises TrainingError where there is nothing, or half of it."""
        with reading_state(folder / STATE, device, "start again without --resume.") as saved:
            model = NeuralLMNetwork(build(NeuralLMConfig, saved["config"])).to(device)
            state = cls.begin(model, saved["updates"], saved["peak"])
            state.model.load_state_dict(saved["model"])
            state.optimizer.load_state_dict(saved["optimizer"])
            state.update = saved["update"]
        return state


def train(state: LMTrainingState, text: Text, held_out: Text, folder: Path, say: Say = lambda line: None) -> None:
    """Make the remaining updates, and save model and state in the folder every `SAVE_EVERY_UPDATES` of them."""
    device = state.model.project.weight.device
    epoch, batches = -1, text.batches(0)
    loss, words, begun = 0.0, 0, time.perf_counter()
    while state.update < state.updates:
        if state.update // len(batches) != epoch:
            epoch = state.update // len(batches)
            batches = text.batches(epoch)  # as many as in any other epoch
        batch = text.batch(batches[state.update % len(batches)], device)
        new = state.step(*batch)
        loss = new if not loss else 0.98 * loss + 0.02 * new
        words += int(batch[1].sum())
        if state.update % SAVE_EVERY_UPDATES == 0 or state.update == state.updates:
            state.save(folder)
            say(
                f"{state.update}/{state.updates}: perplexity {math.exp(loss):.1f}, held out "
                f"{fit(state.model, held_out).perplexity:.1f}, {words / (time.perf_counter() - begun):.0f} words/s"
            )
            words, begun = 0, time.perf_counter()


def read_texts(
    texts: Sequence[Path],
    folder: Path,
    begin: Callable[[Corpus], NeuralLMNetwork],
    withheld: Withheld,
    language: str,
    say: Say = lambda line: None,
) -> tuple[NeuralLMNetwork, Text, Text]:
    """Texts → a model for them; the text to learn from, and that held out; both are kept in the folder. Raises
    LanguageModelError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        learn, hold = Path(name) / "learn.txt", Path(name) / "hold.txt"
        corpus = separate(texts, withheld, language, learn, hold)
        model = begin(corpus)
        say(
            f"Text: {corpus.learned} sentences, {corpus.counts.total()} words; {corpus.held_out} sentences held out, "
            f"{corpus.withheld} withheld. Vocabulary: {len(model.config.words)} words."
        )
        with learn.open(encoding="utf-8") as learned, hold.open(encoding="utf-8") as held:
            text = Text.of(model.config, learned)
            held_out = Text.of(model.config, islice(held, VALIDATION_SENTENCES))
    with replacing(folder / TEXT) as part:
        save_file(
            {
                "words": text.words,
                "starts": text.starts,
                "held_out.words": held_out.words,
                "held_out.starts": held_out.starts,
            },
            part,
        )
    return model, text, held_out


def resume_texts(folder: Path) -> tuple[Text, Text]:
    """The text to learn from, and that held out, as `read_texts` kept them. Raises TrainingError."""
    try:
        kept = load_file(folder / TEXT)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{folder / TEXT} is missing or broken: start again without --resume.") from error
    return Text(kept["words"], kept["starts"]), Text(kept["held_out.words"], kept["held_out.starts"])


def train_from_texts(
    texts: Sequence[Path],
    folder: Path,
    *,
    vocabulary: int | list[str],
    tests: Mapping[str, Sequence[str]],
    language: str,
    hidden: int | None = None,
    init: Path | None = None,
    epochs: float | None = None,
    resume: bool = False,
    device: str = "auto",
    say: Say = lambda line: None,
) -> dict[str, Fit]:
    """Train a model and leave it in the folder; gives how well it predicts the text held out and each of `tests`.

    Args:
        vocabulary: how many words, or which.
        tests: sentences by name, which are withheld.
        hidden: units of the LSTM; None: as many as usual.
        init: a trained model to go on from, with its words and its size.
        epochs: how often to go through the text; None: once, or what a training that is resumed began with.
        resume: go on with the training that the folder holds.
        device: "auto", "cpu" or "cuda".

    Raises LanguageModelError and TrainingError.
    """
    device = training_device(device)
    if resume:
        state = LMTrainingState.restore(folder, torch.device(device))
        text, held_out = resume_texts(folder)
    elif (folder / STATE).exists():
        raise TrainingError(f"{folder / STATE} is of a training that has not ended: go on with --resume, or delete it.")
    elif not texts:
        raise LanguageModelError("Give texts to learn from.")
    else:

        def begin(corpus: Corpus) -> NeuralLMNetwork:
            if trained:
                return NeuralLMNetwork.of(trained)
            words = most_frequent(corpus.counts, vocabulary) if isinstance(vocabulary, int) else vocabulary
            torch.manual_seed(0)
            return NeuralLMNetwork(NeuralLMConfig(tuple(words), **({"hidden": hidden} if hidden else {})))

        trained = NeuralLM.load(init) if init else None  # a missing one is reported before the text is read
        withheld = Withheld(sentence for members in tests.values() for sentence in members)
        model, text, held_out = read_texts(texts, folder, begin, withheld, language, say)
        peak = LEARNING_RATE / 4 if init else LEARNING_RATE
        state = LMTrainingState.begin(model.to(device), len(text.batches(0)), peak)
    if epochs:
        state.updates = max(1, state.update, round(epochs * len(text.batches(0))))
    train(state, text, held_out, folder, say)
    fits = {HELD_OUT_TEXT: fit(state.model, held_out)}
    fits |= {title: fit(state.model, Text.of(state.model.config, members)) for title, members in tests.items()}
    for name in (TEXT, STATE):
        (folder / name).unlink()
    return fits
