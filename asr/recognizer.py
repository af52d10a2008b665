"""The engine: one shared `Recognizer`, and a `Stream` for each speaker.

    source of samples → Resampler → frontend → AcousticModel, chunk by chunk → decoder → Partial / Final

Files, microphones, browsers and sockets all drive the same `Stream`. An utterance's final text comes from a second pass
with full context over its buffered mel frames, so it is as accurate as a file's.
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr import audio, checkpoint, decoder
from asr.decoder import BeamDecoder, Decoder, Emissions, GreedyDecoder, LanguageModel, shift
from asr.endpoint import Cut, Endpointer, EndpointRules, active
from asr.errors import HotwordError
from asr.hotwords import Hotword
from asr.latency import Latency
from asr.lexicon import Spelling
from asr.pronunciation import LetterToSound
from asr.results import Final, Partial, Transcript, Word
from asr.segmenter import Segmenter

Event = Partial | Final
Hotwords = Sequence[str | Hotword]
STEP = 16  # mel frames (160 ms) after which a live stream looks for new chunks and endpoints, however its input is cut
BATCH = 8  # segments of a file that go through the model together
SORTED = 24  # segments of a file that are sorted by length before they are batched
FILE_BLOCK = 10.0  # seconds of a file that are decoded and turned to features at a time
PAUSE_BETWEEN_SEGMENTS = 0.8  # seconds without a word that part a file's segments, as they part a stream's utterances


class Recognizer:
    """Model, language model and settings: shared by any number of streams, and never changed by them.

    `latency` is that of its streams, `hotwords` are those of all its work; without `lm` text comes from the characters
    alone. Raises CheckpointError and HotwordError.
    """

    def __init__(self, name: str | os.PathLike[str] | None = None, *, latency: str | tuple[int, int] | Latency = "balanced",
                 hotwords: Hotwords = (), lm: bool = True, device: str = "auto",
                 rules: EndpointRules | None = None) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.checkpoint = checkpoint.load(name, device)
        self.device = torch.device(device)
        self.frontend, self.model = self.checkpoint.frontend, self.checkpoint.model
        self.latency = Latency.parse(latency)
        self.rules = rules or EndpointRules()
        self.language_model = LanguageModel(self.checkpoint) if lm else None
        self.head = self.language_model.head if self.language_model else decoder.CHARACTERS
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
            spellings = {word: self._spell(word) for hotword in hotwords for word in hotword.phrase}
            return BeamDecoder(self.checkpoint, self.language_model, hotwords, spellings)
        if hotwords:
            raise HotwordError("Hot words need the language model's search: leave out --no-lm.")
        return GreedyDecoder(self.checkpoint)

    def _spell(self, word: str) -> list[Spelling]:
        """How a hot word is spelled in tokens: from the lexicon, else its letters, else the letter-to-sound network."""
        assert self.language_model
        tokens, lexicon = self.language_model.tokens, self.language_model.lexicon
        if known := lexicon.of(word):
            return known
        if self.head == decoder.CHARACTERS:
            guesses: list[tuple[str, ...]] = [tuple(word)]
        else:
            path = self.checkpoint.optional("pronunciation.safetensors")
            guesses = LetterToSound.load(path).pronounce(word, n=3) if path else []
        index = {symbol: i for i, symbol in enumerate(tokens.symbols)}
        spellings = [(*(index[s] for s in guess), tokens.boundary_index) for guess in guesses if set(guess) <= set(index)]
        if not spellings:
            raise HotwordError(f"Hot word '{word}' has no known pronunciation: write it as it sounds, in letters "
                               f"that the checkpoint knows.")
        return spellings

    def stream(self, sample_rate: float = audio.SAMPLE_RATE, *, latency: str | tuple[int, int] | Latency | None = None,
               hotwords: Hotwords | None = None, two_pass: bool = True, rules: EndpointRules | None = None) -> Stream:
        """A new speaker's stream, fed at `sample_rate` Hz.

        Without `two_pass` a final is the last partial: what was committed at this latency.
        """
        settings = self.latency if latency is None else Latency.parse(latency)
        chosen = self.hotwords if hotwords is None else self.parse_hotwords(hotwords)
        return Stream(self, sample_rate, settings, chosen, two_pass, rules or self.rules)

    def transcribe(self, source: audio.Source, *, sample_rate: float | None = None,
                   latency: str | tuple[int, int] | Latency = "offline") -> Transcript:
        """A file, a binary stream or an array with its rate, as a whole. Raises AudioError."""
        segments: list[Final] = []
        seconds = 0.0
        for seconds, new in self.transcribe_parts(source, sample_rate=sample_rate, latency=latency):
            segments += new
        return Transcript(tuple(segments), seconds)

    def transcribe_parts(self, source: audio.Source, *, sample_rate: float | None = None,
                         latency: str | tuple[int, int] | Latency = "offline") -> Iterator[tuple[float, list[Final]]]:
        """As `transcribe`, in parts: (seconds read so far, segments that became known). Memory does not grow."""
        settings = Latency.parse(latency)
        features = self.frontend.stream()
        config = self.frontend.config
        segmenter = Segmenter(config.hop, config.sample_rate)
        waiting: list[Tensor] = []
        position = samples = 0
        for block in audio.read_blocks(source, sample_rate=sample_rate, block_seconds=FILE_BLOCK):
            samples += len(block)
            waiting += segmenter.push(block, features.accept(block))
            if len(waiting) >= SORTED:
                yield samples / config.sample_rate, self._finals(waiting, position, settings)
                position += sum(len(mel) for mel in waiting)
                waiting = []
        waiting += segmenter.flush()
        yield samples / config.sample_rate, self._finals(waiting, position, settings)

    def _finals(self, segments: Sequence[Tensor], position: int, latency: Latency) -> list[Final]:
        """Adjoining segments of mel frames, the first at mel frame `position` → finals that end at pauses."""
        finals = []
        for mel, words in zip(segments, self.recognize(segments, latency), strict=True):
            words = shift(words, position * self.frontend.seconds_per_frame)
            position += len(mel)
            starts = [0] + [i for i in range(1, len(words))
                            if words[i].start - words[i - 1].end >= PAUSE_BETWEEN_SEGMENTS] + [len(words)]
            finals += [_final(words[a:b]) for a, b in zip(starts, starts[1:], strict=False) if b > a]
        return finals

    def recognize(self, utterances: Sequence[Tensor], latency: Latency) -> list[list[Word]]:
        """Utterances of mel frames (T, bands), batched by length → words of each, times from its beginning."""
        order = sorted(range(len(utterances)), key=lambda i: len(utterances[i]))
        results: list[list[Word]] = [[] for _ in utterances]
        search = self.decoder(self.hotwords)
        for first in range(0, len(order), BATCH):
            batch = [i for i in order[first:first + BATCH] if len(utterances[i])]
            if batch:
                for i, emissions in zip(batch, self.emissions([utterances[i] for i in batch], latency), strict=True):
                    results[i] = self.decode(search, emissions)
        return results

    @torch.inference_mode()
    def emissions(self, utterances: Sequence[Tensor], latency: Latency) -> list[Emissions]:
        """One padded batch of utterances (T, bands) through the model → each one's emissions."""
        lengths = torch.tensor([len(mel) for mel in utterances], device=self.device)
        same = len(utterances) == 1
        batch = torch.nn.utils.rnn.pad_sequence(list(utterances), batch_first=True).to(self.device)
        if latency.live:
            out, _ = self.model.forward_chunked(batch, None if same else lengths, latency.chunk, latency.look_ahead)
        else:
            out, _ = self.model(batch, None if same else lengths)
        frames = self.model.frame_lengths(lengths).tolist()
        arrays = {name: values.cpu().numpy() for name, values in out.items()}
        return [{name: values[i, :n] for name, values in arrays.items()} for i, n in enumerate(frames)]

    def decode(self, search: Decoder, emissions: Emissions) -> list[Word]:
        """Words of an utterance; none where the model heard nothing, whatever priors and language model prefer."""
        tokens = self.checkpoint.config.tokens[self.head]
        return search.decode(emissions) if active(emissions[self.head], tokens).any() else []

    def decode_utterance(self, samples: np.ndarray, latency: str | tuple[int, int] | Latency = "offline") -> Final:
        """One utterance of mono float32 samples at 16 kHz as it is: no segments, no endpoints."""
        mel = self.frontend(torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)))
        return _final(self.recognize([mel], Latency.parse(latency))[0])


def _final(words: Sequence[Word]) -> Final:
    return Final(tuple(words), words[0].start if words else 0.0, words[-1].end if words else 0.0)


class Stream:
    """One speaker, live. Feed it with `accept`, end it with `finish`; both return events in order of time.

    Events do not depend on how the samples are cut, except that a partial comes at most once a call. Work and memory
    are bounded by the longest utterance, so a stream can last for days.
    """

    def __init__(self, recognizer: Recognizer, sample_rate: float, latency: Latency, hotwords: tuple[Hotword, ...],
                 two_pass: bool, rules: EndpointRules) -> None:
        self.recognizer, self.two_pass = recognizer, two_pass
        self.resampler = audio.Resampler(sample_rate)
        self.features = recognizer.frontend.stream()
        self.endpointer = Endpointer(rules, recognizer.seconds_per_frame)
        self.tokens = recognizer.checkpoint.config.tokens[recognizer.head]
        self.latency = latency
        self.hotwords = hotwords
        self.preview_every = 1  # steps between provisional passes: raise it when computing falls behind
        self.pending = torch.zeros(0, recognizer.frontend.bands)  # mel frames that no utterance has heard yet
        self.origin = 0  # mel frame of the stream at which the utterance begins
        self.finished = False
        self._begin()

    @property
    def latency(self) -> Latency:
        """May be changed at any time, and acts at the next chunk. Raises ValueError for full context."""
        return self._latency

    @latency.setter
    def latency(self, value: str | tuple[int, int] | Latency) -> None:
        latency = Latency.parse(value)
        if not latency.live:
            raise ValueError("A live stream cannot wait for full context: choose fast, balanced, accurate or C,R.")
        self._latency = latency

    @property
    def hotwords(self) -> tuple[Hotword, ...]:
        """May be changed at any time, and act from the next utterance on. Raises HotwordError."""
        return self._hotwords

    @hotwords.setter
    def hotwords(self, value: Hotwords) -> None:
        chosen = self.recognizer.parse_hotwords(value)
        self._decoder = self.recognizer.decoder(chosen)
        self._hotwords = chosen

    def accept(self, samples: np.ndarray) -> list[Event]:
        """Any number of samples, (n,) or (n, channels), of any common dtype. Raises AudioError, and stays usable."""
        if self.finished:
            raise RuntimeError("This stream is finished: ask the recognizer for a new one.")
        return self._hear(self.features.accept(self.resampler.push(audio.to_mono(samples))), last=False)

    def finish(self) -> list[Event]:
        """The end of the sound: everything that was heard becomes final. A second call returns nothing."""
        if self.finished:
            return []
        self.finished = True
        return self._hear(self.features.accept(self.resampler.flush()), last=True)

    @property
    def seconds(self) -> float:
        """How much sound has been turned to frames so far."""
        return (self.origin + self.heard + len(self.pending)) * self.recognizer.frontend.seconds_per_frame

    def _begin(self) -> None:
        """An utterance starts at `origin`."""
        self.mel: list[Tensor] = []
        self.heard = 0  # mel frames of this utterance
        self.state = self.recognizer.model.stream_state()
        self.session = self._decoder.session()
        self.activity = np.zeros(0, dtype=bool)  # of committed frames
        self.preview: Emissions | None = None
        self.second_pass: tuple[int, list[Word]] | None = None  # frames it covers, what it gave
        self.shown = ""
        self.steps = 0

    @torch.inference_mode()
    def _hear(self, mel: Tensor, last: bool) -> list[Event]:
        self.pending = torch.cat([self.pending, mel])
        events: list[Event] = []
        while len(self.pending) >= STEP:
            step, self.pending = self.pending[:STEP], self.pending[STEP:]
            cut = self._step(step)
            if cut:
                events += self._end(cut)
        if last:
            self._step(self.pending, last=True)
            self.pending = self.pending[:0]
            events += self._end(Cut(len(self.activity), True))
        elif not events or self.heard:
            events += self._partial()
        return events

    def _step(self, mel: Tensor, last: bool = False) -> Cut | None:
        """Hear a few more mel frames: commit the chunks that are ready, look at the rest, look for an endpoint."""
        model = self.recognizer.model
        self.mel.append(mel)
        self.heard += len(mel)
        self.steps += 1
        model.push(self.state, mel.to(self.recognizer.device), last)
        self.preview = None
        while (step := model.step(self.state, self._latency.chunk, self._latency.look_ahead)) is not None:
            emissions, self.preview = _arrays(step[0]), _arrays(step[1])
            self.session.accept(emissions)
            self.activity = np.concatenate([self.activity, active(emissions[self.recognizer.head], self.tokens)])
        if last:
            return None
        waiting = self.state.frames.shape[1]
        if self.preview is None or len(self.preview[self.recognizer.head]) < waiting:
            if self.steps % self.preview_every:
                return None
            self.preview = _arrays(model.preview(self.state)) if waiting else None
        if self.preview is None:
            return self.endpointer.decide(self.activity)
        activity = np.concatenate([self.activity, active(self.preview[self.recognizer.head], self.tokens)])
        if self.two_pass and (end := self.endpointer.likely_end(activity)):
            self._second_pass(end)
        return self.endpointer.decide(activity)

    def _partial(self) -> list[Event]:
        words = self.session.words(self.preview) if self.activity.any() or self.preview is not None else []
        start = self.origin * self.recognizer.frontend.seconds_per_frame
        partial = Partial(tuple(shift(words, start)), start)
        if partial.text == self.shown:
            return []
        self.shown = partial.text
        return [partial]

    def _second_pass(self, frames: int) -> list[Word]:
        """Words of the utterance's first `frames` frames with full context; worked out once for each end."""
        if self.second_pass is None or self.second_pass[0] != frames:
            mel = torch.cat(self.mel)[:frames * self.recognizer.model.config.subsampling]
            words: list[Word] = []
            if len(mel):
                emissions, = self.recognizer.emissions([mel], Latency(0, 0))
                words = self.recognizer.decode(self._decoder, emissions)
            self.second_pass = frames, words
        return self.second_pass[1]

    def _end(self, cut: Cut) -> list[Event]:
        """Close the utterance at a cut; what was heard right of it opens the next one."""
        words: list[Word] = []
        if cut.spoken:
            words = self._second_pass(cut.frame) if self.two_pass else self.session.words(self.preview)
        words = shift(words, self.origin * self.recognizer.frontend.seconds_per_frame)
        end = min(cut.frame * self.recognizer.model.config.subsampling, self.heard)
        self.pending = torch.cat([*self.mel, self.pending])[end:]
        self.origin += end
        self._begin()
        return [_final(words)] if words else []


def _arrays(emissions: dict[str, Tensor]) -> Emissions:
    return {name: values.cpu().numpy() for name, values in emissions.items()}


def load(name: str | os.PathLike[str] | Path | None = None, *, latency: str | tuple[int, int] | Latency = "balanced",
         hotwords: Hotwords = (), lm: bool = True, device: str = "auto") -> Recognizer:
    """A recognizer from a checkpoint folder, or from the one that is shipped."""
    return Recognizer(name, latency=latency, hotwords=hotwords, lm=lm, device=device)
