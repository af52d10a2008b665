"""What is shared and does not change: the model, the language model, and how mel frames become words."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from asr.decoding.beam import BeamDecoder, LanguageModel
from asr.decoding.decoder import Decoder, Emissions
from asr.decoding.g2p import LetterToSound
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hotwords import Hotword
from asr.decoding.lexicon import Spelling
from asr.errors import HotwordError, RillError
from asr.inference.endpoint import EndpointRules, active
from asr.inference.steps import Heard, Turn, take
from asr.model import checkpoint
from asr.model.acoustic import AcousticModel, quantise
from asr.model.hardware import NO_GPU
from asr.model.latency import PRESETS, Latency
from asr.model.streaming import StreamingModel
from asr.model.tokens import CHARACTERS
from asr.text.results import Word

Hotwords = Sequence[str | Hotword]
BATCH = 4  # utterances that go through the model together


class Work(Protocol):
    """Who runs the model for live streams; `batching` is the other one."""

    @property
    def preview_every(self) -> int:
        """Steps from one provisional pass of a stream to the next, at least."""

    def turn(self, turn: Turn) -> Future[Heard]: ...

    def second_pass(self, mel: Tensor, search: Decoder) -> Future[list[Word]]:
        """Words of an utterance of mel frames (T, bands) with full context."""


class Alone:
    """Turns at once, on the thread of whoever asks; second passes beside them."""

    preview_every = 1

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def turn(self, turn: Turn) -> Future[Heard]:
        done: Future[Heard] = Future()
        done.set_result(take(self.engine.model, [turn])[0])
        return done

    def second_pass(self, mel: Tensor, search: Decoder) -> Future[list[Word]]:
        return self.engine.workers.submit(lambda: next(self.engine.recognize_whole([mel], [search])))


class Engine:
    """Model, language model and settings: shared by any number of streams, and never changed by them.

    `latency` is that of its streams, `hotwords` are those of all its work; without `lm` text comes from the characters
    alone. `engine` computes the model: "torch", or "onnx" for ONNX Runtime (CPU only; `onnx_model`); "auto" is the
    faster one (`fastest`). `int8` computes with 8-bit weights (`model.quantise`, `OnnxModel`); None: where they are
    faster and streamed emissions still equal batched ones. `work` runs the model for live streams. Raises
    CheckpointError and HotwordError.
    """

    def __init__(self, name: str | os.PathLike[str] | None = None, *,
                 latency: str | tuple[int, int] | Latency = "balanced", hotwords: Hotwords = (), lm: bool = True,
                 device: str = "auto", engine: str = "auto", int8: bool | None = False,
                 rules: EndpointRules | None = None) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() and engine != "onnx" and not int8 else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise RillError(NO_GPU)
        self.checkpoint = checkpoint.load(name, device)
        if int8 is None:
            cell = self.checkpoint.config.model.cell
            int8 = cell == "lstm" and engine != "torch" and fastest(cell, device, True) == "onnx"
        if engine == "auto":
            engine = fastest(self.checkpoint.config.model.cell, device, int8)
        self.device = torch.device(device)
        self.frontend = self.checkpoint.frontend
        self.model = _model(self.checkpoint.model, engine, device, int8)
        self.latency = Latency.parse(latency)
        self.rules = rules or EndpointRules()
        self.language_model = LanguageModel(self.checkpoint) if lm else None
        self.head = self.language_model.head if self.language_model else CHARACTERS
        # PyTorch's threads, each on a batch of its own: inside one batch they would wait for each other at every step.
        threads = 1 if self.device.type == "cuda" else torch.get_num_threads()
        self.workers = ThreadPoolExecutor(threads, "recognize", initializer=torch.set_num_threads, initargs=(1,))
        self.work: Work = Alone(self)
        self._decoders = lru_cache(maxsize=8)(self._build_decoder)
        self.hotwords = self.parse_hotwords(hotwords)
        self.decoder(self.hotwords)

    @property
    def seconds_per_frame(self) -> float:
        return self.checkpoint.seconds_per_frame

    def parse_hotwords(self, hotwords: Hotwords) -> tuple[Hotword, ...]:
        return tuple(h if isinstance(h, Hotword) else Hotword.parse(h) for h in hotwords)

    def decoder(self, hotwords: tuple[Hotword, ...]) -> Decoder:
        """The decoder for a set of hot words; the last few sets are kept."""
        return self._decoders(hotwords)

    def _build_decoder(self, hotwords: tuple[Hotword, ...]) -> Decoder:
        if self.language_model:
            return BeamDecoder(self.checkpoint, self.language_model, hotwords, self._spell)
        if hotwords:
            raise HotwordError("Hot words need the language model's search: leave out --no-lm.")
        return GreedyDecoder(self.checkpoint)

    @cached_property
    def _letter_to_sound(self) -> LetterToSound | None:
        path = self.checkpoint.optional("pronunciation.safetensors")
        return LetterToSound.load(path) if path else None

    def _spell(self, word: str) -> list[Spelling]:
        """How a hot word is spelled in tokens: from the lexicon, else its letters, else the letter-to-sound network."""
        assert self.language_model
        tokens, lexicon = self.language_model.tokens, self.language_model.lexicon
        if known := lexicon.of(word):
            return known
        if self.head == CHARACTERS:
            guesses: list[tuple[str, ...]] = [tuple(word)]
        else:
            guesses = self._letter_to_sound.pronounce(word, n=3) if self._letter_to_sound else []
        index = {symbol: i for i, symbol in enumerate(tokens.symbols)}
        spellings = [(*(index[symbol] for symbol in guess), tokens.boundary_index)
                     for guess in guesses if set(guess) <= set(index)]
        if not spellings:
            raise HotwordError(f"Hot word '{word}' has no known pronunciation: write it as it sounds, in letters "
                               f"that the checkpoint knows.")
        return spellings

    def recognize(self, utterances: Sequence[Tensor], latency: Latency) -> list[list[Word]]:
        """Utterances of mel frames (T, bands), batched by length → words of each, times from its beginning."""
        order = sorted((i for i in range(len(utterances)) if len(utterances[i])), key=lambda i: len(utterances[i]))
        batches = [order[first:first + BATCH] for first in range(0, len(order), BATCH)]
        search = self.decoder(self.hotwords)

        def work(batch: list[int]) -> list[list[Word]]:
            return [self.decode(search, e) for e in self.emissions([utterances[i] for i in batch], latency)]

        results: list[list[Word]] = [[] for _ in utterances]
        for batch, words in zip(batches, self.workers.map(work, batches), strict=True):
            for i, found in zip(batch, words, strict=True):
                results[i] = found
        return results

    def recognize_whole(self, utterances: Sequence[Tensor], searches: Sequence[Decoder]) -> Iterator[list[Word]]:
        """Utterances (T, bands), T ≥ 1, as one batch with full context, on the calling thread."""
        emissions = self.emissions(utterances, PRESETS["offline"])
        return (self.decode(search, each) for search, each in zip(searches, emissions, strict=True))

    @torch.inference_mode()
    def emissions(self, utterances: Sequence[Tensor], latency: Latency) -> list[Emissions]:
        """Utterances (T, bands) through the model, as one padded batch where it can be → each one's emissions."""
        if len(utterances) > 1 and not self.model.together:
            return [emissions for each in utterances for emissions in self.emissions([each], latency)]
        lengths = torch.tensor([len(mel) for mel in utterances], device=self.device)
        same = len(utterances) == 1
        batch = torch.nn.utils.rnn.pad_sequence(list(utterances), batch_first=True).to(self.device)
        if latency.live:
            out, _ = self.model.forward_chunked(batch, None if same else lengths, latency.chunk, latency.look_ahead)
        else:
            out, _ = self.model.forward(batch, None if same else lengths)
        frames = self.model.frame_lengths(lengths).tolist()
        arrays = {name: values.cpu().numpy() for name, values in out.items()}
        return [{name: values[i, :n] for name, values in arrays.items()} for i, n in enumerate(frames)]

    def decode(self, search: Decoder, emissions: Emissions) -> list[Word]:
        """Words of an utterance; none where the model heard nothing, whatever priors and language model prefer."""
        tokens = self.checkpoint.config.tokens[self.head]
        return search.decode(emissions) if active(emissions[self.head], tokens).any() else []


def fastest(cell: str, device: str, int8: bool) -> str:
    """The engine that "auto" stands for: ONNX Runtime on the CPU, where it is installed, but for 8-bit weights that it
    has not."""
    known = find_spec("onnx") and find_spec("onnxruntime") and not (int8 and cell == "gru")
    return "onnx" if known and device == "cpu" else "torch"


def _model(model: AcousticModel, engine: str, device: str, int8: bool) -> StreamingModel:
    """What computes the checkpoint's model."""
    if engine == "onnx":
        if device != "cpu":
            raise RillError("ONNX Runtime computes on the CPU here: choose the device 'cpu', or the engine 'torch'.")
        try:
            from asr.model.onnx_runtime import OnnxModel
        except ModuleNotFoundError as error:
            raise RillError("The engine 'onnx' needs packages that are not there: pip install onnx onnxruntime, or "
                            "choose the engine 'torch'.") from error
        return OnnxModel(model, int8)
    if engine != "torch":
        raise RillError(f"There is no engine '{engine}': choose auto, torch or onnx.")
    if int8:
        quantise(model)
    return model
