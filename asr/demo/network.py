"""Inside the network: what every part of it does with one recording, chunk by chunk as the live path does it.

`picture` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.inference.recognizer import Recognizer
from asr.model.checkpoint import Checkpoint
from asr.model.latency import Latency
from asr.model.streaming import Emissions
from asr.text.results import Alternative, Word

MOST_ALTERNATIVES = 8
NORM_FLOOR = 1e-5  # of the variance in a layer normalization

States = tuple[np.ndarray, np.ndarray]  # h and, for the LSTM, c


@dataclass(frozen=True)
class Trace:
    """One pass over one recording; F frames, H hidden units, V tokens of the head that words are read from."""

    latency: Latency
    forward: list[np.ndarray]  # of each layer, (F, H)
    backward: list[np.ndarray]  # of each layer, (F, H)
    probabilities: np.ndarray  # (F, V)
    alternatives: list[Alternative]  # the sentences that may have been said, the best first

    @property
    def words(self) -> tuple[Word, ...]:
        return self.alternatives[0].words if self.alternatives else ()


@dataclass(frozen=True)
class Recording:
    """What both passes share: the audio and its mel frames (T, bands)."""

    samples: np.ndarray
    mel: np.ndarray


def trace(recognizer: Recognizer, samples: np.ndarray, latencies: Sequence[Latency]) -> tuple[Recording, list[Trace]]:
    """Mono float32 at 16 kHz, at least 512 samples → the recording, and what the model did with it at each latency."""
    engine = recognizer.engine
    recording = Recording(samples, engine.frontend(samples))
    frames = engine.model.embed(recording.mel[None], None)[0]
    network = Network(engine.checkpoint)
    decoder = engine.decoder(recognizer.hotwords)
    traces = []
    for latency in latencies:
        forward, backward, out = network.unroll(frames, latency)
        emissions = network.emissions(out)
        alternatives = engine.sentences(decoder, emissions, MOST_ALTERNATIVES)
        traces.append(Trace(latency, forward, backward, np.exp(emissions[engine.head]), alternatives))
    return recording, traces


class Network:
    """The layers written out: the same arithmetic as `AcousticModel.advance`, for all chunks of a recording at once.

    Only a forward RNN's state passes from chunk to chunk. So a layer takes the recording's frames one by one in that
    direction alone; look-aheads and the backward direction take as many steps as one chunk has.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config, self.heads = checkpoint.config.model, list(checkpoint.config.tokens)
        self.weights = checkpoint.weights()

    def unroll(self, frames: np.ndarray, latency: Latency) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        """The stem's frames (F, H) → outputs of each layer's forward and backward RNN, (F, H) each, and the last
        layer's output (F, H). Full context is one chunk as long as the recording."""
        total, hidden = frames.shape
        chunk = latency.chunk or total
        x, lengths = windows(frames, chunk, latency.look_ahead)

        def committed(each: np.ndarray) -> np.ndarray:
            return each[:, :chunk].reshape(-1, hidden)[:total]

        forward, backward = [], []
        for layer in (f"layers.{i}" for i in range(self.config.layers)):
            normed = self.norm(f"{layer}.norm", x)
            h, c = (
                part.reshape(len(x), chunk, hidden)
                for part in self.rnn(f"{layer}.forward_rnn", normed[:, :chunk].reshape(1, -1, hidden))
            )
            ahead, _ = self.rnn(f"{layer}.forward_rnn", normed[:, chunk:], (h[:, -1], c[:, -1]))
            there = np.concatenate([h, ahead], axis=1)
            back = reverse(self.rnn(f"{layer}.backward_rnn", reverse(normed, lengths))[0], lengths)
            forward.append(committed(there))
            backward.append(committed(back))
            x = x + self.linear(f"{layer}.proj", np.concatenate([there, back], axis=2))
        return forward, backward, committed(x)

    def emissions(self, x: np.ndarray) -> Emissions:
        """(F, H) → log-probabilities (F, V) of every head."""
        scores = {name: self.linear(f"heads.{name}", self.norm("norm", x)) for name in self.heads}
        return {name: each - np.logaddexp.reduce(each, axis=1, keepdims=True) for name, each in scores.items()}

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centered = x - x.mean(axis=-1, keepdims=True)
        scaled = centered / np.sqrt(np.square(centered).mean(axis=-1, keepdims=True) + NORM_FLOOR)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def rnn(self, name: str, x: np.ndarray, state: States | None = None) -> States:
        """One direction over (N, T, H) from a state, (N, H) each; None: zeros → the state after every frame, (N, T, H)
        each. Its first part is the output."""
        weights = {kind: self.weights[f"{name}.{kind}_l0"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        inputs = x @ weights["weight_ih"].T + weights["bias_ih"]
        recurrent = np.ascontiguousarray(weights["weight_hh"].T)
        h, c = state or np.zeros((2, len(x), x.shape[2]), np.float32)
        states = np.empty_like(x), np.empty_like(x)
        for step in range(x.shape[1]):
            given, own = inputs[:, step], h @ recurrent + weights["bias_hh"]
            if self.config.cell == "lstm":
                both = gates(given + own, 4)
                enter, keep, _, leave = sigmoid(both)
                c = keep * c + enter * np.tanh(both[2])
                h = leave * np.tanh(c)
            elif self.config.cell == "gru":
                (reset, update, new), (own_reset, own_update, own_new) = gates(given, 3), gates(own, 3)
                kept = sigmoid(update + own_update)
                h = (1 - kept) * np.tanh(new + sigmoid(reset + own_reset) * own_new) + kept * h
            else:
                h = np.tanh(given + own)
            states[0][:, step], states[1][:, step] = h, c
        return states


def windows(frames: np.ndarray, chunk: int, look_ahead: int) -> tuple[np.ndarray, np.ndarray]:
    """(F, H) → every chunk with its look-ahead (N, chunk + look-ahead, H), zeros behind the last frame; and how many
    frames of each are real (N, 1)."""
    places = np.arange(0, len(frames), chunk)[:, None] + np.arange(chunk + look_ahead)
    padded = np.concatenate([frames, np.zeros((chunk + look_ahead, frames.shape[1]), np.float32)])
    return padded[places], (places < len(frames)).sum(axis=1, keepdims=True)


def reverse(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Windows (N, T, H), each from its own end to its start; what is behind its length (N, 1) stays there."""
    place = np.arange(x.shape[1])
    return np.take_along_axis(x, np.where(place < lengths, lengths - 1 - place, place)[..., None], axis=1)


def gates(x: np.ndarray, count: int) -> np.ndarray:
    """(N, count H) → (count, N, H)"""
    return x.reshape(len(x), count, -1).swapaxes(0, 1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
