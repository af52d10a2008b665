"""Everything of a checkpoint that all its users share: the model, the decoders, and how mel frames become words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec

import numpy as np

from asr.decoding.beam import BeamDecoder, LanguageModel
from asr.decoding.decoder import Decoder, Emissions
from asr.decoding.g2p import FILE as PRONUNCIATION
from asr.decoding.g2p import G2P
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hotwords import Hotword
from asr.decoding.lexicon import Spelling
from asr.errors import HotwordError, RillError
from asr.inference.endpoint import active
from asr.model import checkpoint
from asr.model.checkpoint import Checkpoint
from asr.model.hardware import NO_GPU, NO_TORCH, cores, has_gpu, set_threads
from asr.model.latency import PRESETS, Latency
from asr.model.streaming import StreamingModel
from asr.model.tokens import CHARACTERS
from asr.text.punctuator import FILE as PUNCTUATION
from asr.text.punctuator import Punctuator
from asr.text.results import Alternative, Word

Hotwords = Sequence[str | Hotword]
BATCH_UTTERANCES, BATCH_S = 4, 60.0  # that go through the model together, and their length with what pads them


@dataclass(frozen=True)
class SecondPassRequest:
    """A live utterance to recognize with full context."""

    mel: np.ndarray  # mel frames (T, bands), T ≥ 1
    decoder: Decoder
    n: int  # sentences that are wanted, at most
    firm: tuple[str, ...] = ()  # words that were shown as firm


@dataclass(frozen=True)
class Recognition:
    """Utterances that are being recognized: the numbers of those in each batch, and the sentences that it will have."""

    utterances: int
    batches: Sequence[Sequence[int]]
    found: Sequence[Future[list[list[Alternative]]]]

    def done(self) -> bool:
        return all(each.done() for each in self.found)

    def result(self) -> list[list[Alternative]]:
        """The sentences of each utterance, the best first, times from its beginning, once all are there; none where
        nothing is said. Raises what recognizing raised."""
        sentences: list[list[Alternative]] = [[] for _ in range(self.utterances)]
        try:
            for batch, found in zip(self.batches, self.found, strict=True):
                for i, each in zip(batch, found.result(), strict=True):
                    sentences[i] = each
        finally:
            self.cancel()
        return sentences

    def cancel(self) -> None:
        """Leave out the batches that no thread has begun."""
        for each in self.found:
            each.cancel()


class Engine:
    """Model, decoders and threads of one checkpoint, shared by recognizers and streams, which never change it.

    Args:
        name: a checkpoint's folder, or None for the one that is shipped.
        lm: whether to search with lexicon and language model; without, text comes from the characters alone.
        device: "cpu", "cuda" or "auto".
        backend: what computes the model: "torch" (CPU or GPU), "onnx" (ONNX Runtime, CPU only) or "auto", the faster
            one on the device.
        int8: compute with 8-bit weights, which LSTMs have in ONNX Runtime; None: where they are available.
        threads: utterances that are recognized at once on the CPU; None: as many as there are cores.

    Raises CheckpointError, and RillError for a device or backend that is not there.
    """

    def __init__(
        self,
        name: str | os.PathLike[str] | None = None,
        *,
        lm: bool = True,
        device: str = "auto",
        backend: str = "auto",
        int8: bool | None = False,
        threads: int | None = None,
    ) -> None:
        if device == "auto":
            device = "cuda" if backend != "onnx" and not int8 and has_gpu() else "cpu"
        self.gpu = device.startswith("cuda")
        if self.gpu and not has_gpu():
            raise RillError(NO_GPU if find_spec("torch") else NO_TORCH)
        found = checkpoint.load(name)
        if backend == "auto":
            backend = fastest(device)
        if int8 is None:
            int8 = found.config.model.cell == "lstm" and backend == "onnx"
        self.frontend = found.frontend
        self.model = _model(found, backend, device, int8)
        self.checkpoint = found.without_weights()
        del found  # before more is loaded
        self.language_model = LanguageModel(self.checkpoint) if lm else None
        self.head = self.language_model.head if self.language_model else CHARACTERS
        # Each thread has a batch of its own: inside one batch several would wait for each other at every frame.
        self.workers = ThreadPoolExecutor(
            1 if self.gpu else threads or cores(), "recognize", initializer=set_threads, initargs=(1,)
        )
        self._decoders = lru_cache(maxsize=8)(self._build_decoder)
        self._process = os.getpid()

    def check_process(self) -> None:
        """Raises RillError in a process that was forked after loading: it does not have the threads, and would wait for
        them for ever."""
        if os.getpid() != self._process:
            raise RillError(
                "This recognizer was loaded before the process was forked: load one in each process, or start "
                "processes with the method 'spawn'."
            )

    @property
    def seconds_per_frame(self) -> float:
        return self.checkpoint.seconds_per_frame

    def parse_hotwords(self, hotwords: Hotwords) -> tuple[Hotword, ...]:
        """Raises HotwordError."""
        return tuple(h if isinstance(h, Hotword) else Hotword.parse(h) for h in hotwords)

    def decoder(self, hotwords: tuple[Hotword, ...] = ()) -> Decoder:
        """The decoder for a set of hot words; the last few sets are kept. Raises HotwordError."""
        return self._decoders(hotwords)

    def _build_decoder(self, hotwords: tuple[Hotword, ...]) -> Decoder:
        if self.language_model:
            return BeamDecoder(self.checkpoint, self.language_model, hotwords, self._spell)
        if hotwords:
            raise HotwordError("Hot words need the language model's search: leave out --no-lm.")
        return GreedyDecoder(self.checkpoint)

    @cached_property
    def punctuator(self) -> Punctuator | None:
        """The checkpoint's tagger, which writes words as sentences; None where it has none. Raises CheckpointError."""
        path = self.checkpoint.optional(PUNCTUATION)
        return Punctuator.load(path) if path else None

    @cached_property
    def _g2p(self) -> G2P | None:
        path = self.checkpoint.optional(PRONUNCIATION)
        return G2P.load(path) if path else None

    def _spell(self, word: str) -> list[Spelling]:
        """How a hot word is spelled in tokens: from the lexicon, else its letters, else the letter-to-sound network."""
        assert self.language_model
        tokens, lexicon = self.language_model.tokens, self.language_model.lexicon
        if known := lexicon.of(word):
            return known
        if self.head == CHARACTERS:
            guesses: list[tuple[str, ...]] = [tuple(word)]
        else:
            guesses = self._g2p.pronounce(word, n=3) if self._g2p else []
        index = {symbol: i for i, symbol in enumerate(tokens.symbols)}
        spellings = [
            (*(index[symbol] for symbol in guess), tokens.boundary_index)
            for guess in guesses
            if set(guess) <= set(index)
        ]
        if not spellings:
            raise HotwordError(
                f"Hot word '{word}' has no known pronunciation: write it as it sounds, in letters "
                f"that the checkpoint knows."
            )
        return spellings

    def recognize(
        self, utterances: Sequence[np.ndarray], latency: Latency, hotwords: tuple[Hotword, ...] = ()
    ) -> list[list[Word]]:
        """Utterances of mel frames (T, bands) → the words of each, times from its beginning."""
        found = self.recognize_later(utterances, latency, hotwords, 1).result()
        return [list(sentences[0].words) if sentences else [] for sentences in found]

    def recognize_later(
        self, utterances: Sequence[np.ndarray], latency: Latency, hotwords: tuple[Hotword, ...], n: int
    ) -> Recognition:
        """At most `n` sentences of each utterance, in batches of similar length on the engine's threads, while the
        caller goes on."""
        self.check_process()
        decoder = self.decoder(hotwords)
        batches = batches_of([len(mel) for mel in utterances], int(BATCH_S / self.frontend.seconds_per_frame))

        def recognize(batch: list[np.ndarray]) -> list[list[Alternative]]:
            emissions = self.emissions(batch, latency)
            batch.clear()  # of a long recording nothing is kept that is no longer needed
            return [self.sentences(decoder, each, n) for each in emissions]

        found = [self.workers.submit(recognize, [utterances[i] for i in batch]) for batch in batches]
        return Recognition(len(utterances), batches, found)

    def recognize_batch(self, requests: Sequence[SecondPassRequest]) -> Iterator[list[Alternative]]:
        """Utterances as one batch with full context, on the calling thread: the sentences of each, the best first."""
        emissions = self.emissions([request.mel for request in requests], PRESETS["offline"])
        return (
            self.sentences(request.decoder, each, request.n, request.firm)
            for request, each in zip(requests, emissions, strict=True)
        )

    def emissions(self, utterances: Sequence[np.ndarray], latency: Latency) -> list[Emissions]:
        """Utterances (T, bands) → the emissions of each, computed as one padded batch."""
        lengths = np.array([len(mel) for mel in utterances])
        batch = np.zeros((len(utterances), lengths.max(), self.frontend.bands), np.float32)
        for row, mel in zip(batch, utterances, strict=True):
            row[: len(mel)] = mel
        real = None if len(utterances) == 1 else lengths
        if latency.live:
            out, _ = self.model.forward_chunked(batch, real, latency.chunk, latency.look_ahead)
        else:
            out, _ = self.model.forward(batch, real)
        frames = self.model.frame_lengths(lengths)
        return [{name: values[i, :n] for name, values in out.items()} for i, n in enumerate(frames)]

    def decode(self, decoder: Decoder, emissions: Emissions) -> list[Word]:
        """The words of `sentences`' first."""
        found = self.sentences(decoder, emissions, 1)
        return list(found[0].words) if found else []

    def sentences(self, decoder: Decoder, emissions: Emissions, n: int, firm: Sequence[str] = ()) -> list[Alternative]:
        """At most `n` sentences of an utterance, the best first, which keeps `firm` words where it can; none where no
        frame is active, whatever priors and language model prefer."""
        tokens = self.checkpoint.config.tokens[self.head]
        return decoder.nbest(emissions, n, firm) if active(emissions[self.head], tokens).any() else []


def batches_of(lengths: Sequence[int], most: int) -> list[list[int]]:
    """The numbers of utterances of similar length, the longest first: at most `BATCH_UTTERANCES` together, and `most`
    mel frames, padding included; one that is longer goes alone. Those of no length are in none."""
    batches: list[list[int]] = []
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i]):
        room = min(BATCH_UTTERANCES, most // lengths[batches[-1][0]]) if batches else 0
        if batches and len(batches[-1]) < room:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def fastest(device: str) -> str:
    """The backend that "auto" stands for."""
    return "onnx" if device == "cpu" else "torch"


def _model(found: Checkpoint, backend: str, device: str, int8: bool) -> StreamingModel:
    """What computes the checkpoint's model."""
    if backend == "onnx":
        if device != "cpu":
            raise RillError("ONNX Runtime computes on the CPU here: choose the device 'cpu', or the engine 'torch'.")
        from asr.model.onnx_runtime import OnnxModel

        return OnnxModel(found, int8)
    if backend != "torch":
        raise RillError(f"There is no engine '{backend}': choose auto, torch or onnx.")
    if int8:
        raise RillError(
            "The engine 'torch' has no 8-bit weights: choose the engine 'onnx' on the CPU, or leave out --int8."
        )
    try:
        from asr.model.torch_runtime import TorchModel
    except ModuleNotFoundError as error:
        raise RillError(NO_TORCH) from error
    return TorchModel(found.torch_model(device))
