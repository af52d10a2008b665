"""Audio in: any file, pipe or array becomes blocks of mono float32 at 16 kHz.

    for block in read_blocks("talk.mp4"):            # also Path, sys.stdin.buffer, or an array with sample_rate=
        ...                                          # float32, shape (up to 16 000,)

Everything is read piece by piece, so that memory stays flat however long the recording is. Decoding is done by FFmpeg
(PyAV), see `container`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, runtime_checkable

import av
import numpy as np
import soxr

from asr.audio.container import File, open_container, stated_seconds
from asr.errors import AudioError

SAMPLE_RATE = 16_000  # Hz, everywhere inside the package
MIN_RATE_HZ = 1_000  # below it a small file grows into hours of silence
MAX_RATE_HZ = 768_000
MAX_CHANNELS = 64
MAX_PLANES = 8  # with more, PyAV runs past the end of FFmpeg's list of them; only damage brings such frames
MAX_SAMPLE = 1e9  # full scale is 1; beyond it the power spectrum overflows float32
PADDING_S = 0.15  # that a header may state beyond what was decoded: codec padding reaches so far
FORMATS = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}


@runtime_checkable
class Decoded(Protocol):
    """A source that decodes itself."""

    name: str

    def blocks(self, seconds: float) -> Iterator[np.ndarray]:
        """Mono float32 at 16 kHz, each block of that many seconds at most. Raises AudioError."""


Source: TypeAlias = str | Path | BinaryIO | np.ndarray | Decoded


class AudioWarning(UserWarning):
    """A recording was damaged or cut short; what could be read was used."""


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Mixes audio of shape (n,) or (n, channels) down to a new float32 array of shape (n,), the mean over channels.

    uint8 (centered on 128, as in WAV), int16 and int32 are divided by full scale; float32 and float64 are taken as they
    are, nominally in [-1, 1]. AudioError for other types and shapes, and for samples that are NaN, infinite or beyond
    ±1e9. Tensors of PyTorch are arrays here. Zero-length audio is audio too.
    """
    if not isinstance(samples, np.ndarray):
        samples = _as_array(samples)
    kind = f"{samples.dtype.kind}{samples.dtype.itemsize}"
    if kind not in ("u1", "i2", "i4", "f4", "f8"):
        raise AudioError(f"cannot use {samples.dtype} samples; convert them to int16 or float32.")
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MAX_CHANNELS):
        raise AudioError(f"cannot use samples of shape {samples.shape}; pass (n,) or (n, channels).")
    channels = samples[:, None] if samples.ndim == 1 else samples
    # Sums channel by channel and not with mean(): several times faster, and the same to the bit for any split.
    with np.errstate(over="ignore", invalid="ignore"):
        mono = channels[:, 0].astype(np.float32)
        for channel in range(1, channels.shape[1]):
            mono += channels[:, channel]
        if kind == "u1":
            mono -= 128 * channels.shape[1]
        full_scale = {"u1": 2**7, "i2": 2**15, "i4": 2**31}.get(kind, 1)
        mono *= np.float32(1 / (full_scale * channels.shape[1]))
        # "not <=" holds for NaN too; integers are neither NaN nor too loud.
        if samples.dtype.kind == "f" and mono.size and not max(mono.max(), -mono.min()) <= MAX_SAMPLE:
            raise AudioError("some samples are NaN, infinite or absurdly large; check what produced them.")
    return mono


def _as_array(samples: object) -> np.ndarray:
    kind = type(samples).__name__
    if not hasattr(samples, "__array__"):
        raise AudioError(f"cannot use {kind} as samples; pass a NumPy array, such as np.frombuffer(data, np.int16).")
    try:
        return np.asarray(samples)
    except (TypeError, RuntimeError) as error:  # a tensor on a GPU, or with a gradient
        raise AudioError(f"cannot use this {kind} as samples; pass it as a NumPy array.") from error


class Resampler:
    """Brings a stream of any sample rate to 16 kHz (libsoxr, quality HQ, linear phase).

    The output is the same to the bit however the input is cut into blocks. It is aligned with the input: the filter's
    group delay is taken out, and `flush` completes the audio to its length.

    Delay, from a sample's arrival until its output (worst case, measured): none at 16 kHz; 37 ms at 48 kHz; 41 ms at
    44.1 and 22.05 kHz; 79 ms at 96 kHz; 84 ms at 11.025 kHz; 116 ms at 8 kHz. It is libsoxr's block convolution.

    `source_rate`: Hz, whole or not; AudioError unless it is from 1 000 to 768 000.
    """

    def __init__(self, source_rate: float) -> None:
        if not MIN_RATE_HZ <= source_rate <= MAX_RATE_HZ:
            raise AudioError(f"a rate of {source_rate:g} Hz cannot be used; pass {MIN_RATE_HZ} to {MAX_RATE_HZ}.")
        self.source_rate = source_rate
        self.held = 0.0  # seconds of audio that have gone in and not come out yet
        self._flushed = False
        self._soxr = None
        if source_rate != SAMPLE_RATE:
            self._soxr = soxr.ResampleStream(source_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes samples as `to_mono` does; returns what is ready at 16 kHz, float32, shape (m,), m ≥ 0."""
        if self._flushed:
            raise AudioError("this resampler was flushed; make a new one for new audio.")
        mono = to_mono(samples)
        if self._soxr is None:
            return mono
        out = self._soxr.resample_chunk(mono)
        self.held += len(mono) / self.source_rate - len(out) / SAMPLE_RATE
        return out

    def flush(self) -> np.ndarray:
        """Ends the stream and returns its tail at 16 kHz, float32; empty when called again."""
        flushed, self._flushed, nothing = self._flushed, True, np.zeros(0, np.float32)
        return nothing if flushed or self._soxr is None else self._soxr.resample_chunk(nothing, last=True)


def read_blocks(source: Source, sample_rate: float | None = None, block_seconds: float = 1.0) -> Iterator[np.ndarray]:
    """Reads audio from anywhere as blocks of mono float32 at 16 kHz.

    Args:
        source: a path to any audio or video file that FFmpeg can decode; a binary file object, which need not seek
            (`sys.stdin.buffer`; one that can is read from its start and left open); or an array as for `to_mono`.
        sample_rate: the array's sample rate in Hz; files carry their own.
        block_seconds: the most a block holds. A pipe is handed on at this grain, after FFmpeg has looked at its start
            to know the format (about 3 s of 16 kHz, 16-bit WAV; nothing of it is lost).

    Yields:
        float32 arrays of shape (m,), 0 < m ≤ block_seconds × 16 000. An empty array gives no block.

    Raises:
        AudioError: at the first block, where the source is missing, unreadable, empty, without audio or of an unusable
            rate; where samples of an array are NaN or infinite, or all of a file's.

    Warns:
        AudioWarning: at the end, where the file turned out damaged or shorter than its header says, or has samples that
            are NaN or infinite; they were taken as silence.
    """
    if isinstance(source, Decoded):
        yield from source.blocks(block_seconds)
        return
    longest = max(1, int(block_seconds * SAMPLE_RATE))
    with _naming(source):
        resampler = Resampler(SAMPLE_RATE)
        for rate, samples in _pieces(source, sample_rate, block_seconds):
            if rate != resampler.source_rate:  # at first, and where the rate changes inside a file
                yield from _split(resampler.flush(), longest)
                resampler = Resampler(rate)
            yield from _split(resampler.push(samples), longest)
        yield from _split(resampler.flush(), longest)


def duration(source: File) -> float | None:
    """Length in seconds by the container's header, or guessed from size and bit rate where that states none.

    For progress bars: nothing is decoded. None where it is unknown, as for pipes. AudioError as in `read_blocks`.
    """
    with _naming(source), open_container(source) as (container, _, _):
        microseconds = container.duration or 0
        return microseconds / av.time_base if microseconds > 0 and container.size > 0 else None


def _pieces(source: File | np.ndarray, sample_rate: float | None, seconds: float) -> Iterator[tuple[float, np.ndarray]]:
    """The source's audio as (sample rate, samples as for `to_mono`), about that many seconds a piece."""
    if isinstance(source, np.ndarray):
        if sample_rate is None or not 0 < sample_rate < float("inf"):
            raise AudioError("an array has no sample rate of its own; pass it in Hz, as in sample_rate=16000.")
        for piece in _split(np.atleast_1d(source), max(1, int(seconds * sample_rate))):
            yield sample_rate, piece
        return
    if sample_rate is not None:
        raise AudioError("a file carries its own sample rate; leave sample_rate= out.")
    with open_container(source) as (container, stream, reader):
        stated = stated_seconds(container, stream)
        endless = container.format.name == "wav" and reader.starts_endless_wav()
        decoded, damaged = 0.0, False  # seconds so far
        samples = impossible = 0
        pending: list[list[np.ndarray]] = []  # the planes of each frame that waits; a packed frame has one
        waiting, form = 0, (0, "", 0)  # samples in pending; their rate, sample format and channels
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
                damaged |= packet.is_corrupt and not endless  # cut off in the middle
                frames = packet.decode()
            except (StopIteration, IndexError):  # PyAV ends in an IndexError where tracks were added on the way
                break
            except (av.FFmpegError, OSError):  # one bad packet, the next may be whole; or the reading ended early
                damaged = True
                continue
            for frame in frames:
                frame_form = (frame.sample_rate, frame.format.name, frame.layout.nb_channels)
                if frame.format.is_planar and frame.layout.nb_channels > MAX_PLANES:
                    damaged = True
                    continue
                if pending and (frame_form != form or waiting >= seconds * form[0]):
                    piece = _join(pending, *form[1:])
                    impossible += _silence_impossible(piece)
                    yield form[0], piece
                    pending, waiting = [], 0
                form = frame_form
                pending.append(_planes(frame))
                waiting += frame.samples
                decoded += frame.samples / frame.sample_rate
                samples += frame.samples * frame.layout.nb_channels
        if pending:
            piece = _join(pending, *form[1:])
            impossible += _silence_impossible(piece)
            yield form[0], piece
    if not decoded:
        reason = "is damaged, nothing could be decoded" if damaged or stated else "holds no audio, its length is zero"
        raise AudioError(f"{reason}; record or download it again.")
    if impossible:
        if impossible == samples:
            raise AudioError("all samples are NaN, infinite or absurdly large; check what produced them.")
        message = (
            f"{_name(source)}: {impossible} samples are NaN, infinite or absurdly large; they are taken as silence."
        )
        warnings.warn(message, AudioWarning, stacklevel=3)
    if damaged or decoded < stated - PADDING_S:
        of_stated = f" of {stated:.1f}" if stated > decoded else ""
        message = f"{_name(source)}: damaged or cut short; {decoded:.1f}{of_stated} seconds could be read."
        warnings.warn(message, AudioWarning, stacklevel=3)  # whoever iterates over read_blocks


def _planes(frame: av.AudioFrame) -> list[np.ndarray]:
    """Views of a decoded frame's memory, faster than its to_ndarray(): one (n,) a channel, or one (n × channels,)."""
    dtype = FORMATS.get(frame.format.name.removesuffix("p"))
    if dtype is None:
        raise AudioError(f"its sample format {frame.format.name} is not supported; convert it to 16-bit WAV.")
    channels = frame.layout.nb_channels
    planes, values = (channels, frame.samples) if frame.format.is_planar else (1, frame.samples * channels)
    return [np.frombuffer(memoryview(plane), dtype, values) for plane in frame.planes[:planes]]  # PyAV lists too many


def _join(frames: list[list[np.ndarray]], sample_format: str, channels: int) -> np.ndarray:
    """Frames of one format as one array, shape (n, channels)."""
    planes = [np.concatenate(parts) for parts in zip(*frames, strict=True)]
    return np.stack(planes).T if sample_format.endswith("p") else planes[0].reshape(-1, channels)


def _silence_impossible(samples: np.ndarray) -> int:
    """Sets samples that `to_mono` would refuse to zero, in place; returns how many."""
    if samples.dtype.kind != "f" or (samples.size and max(samples.max(), -samples.min()) <= MAX_SAMPLE):
        return 0
    impossible = ~(np.abs(samples) <= MAX_SAMPLE)  # not ">": that is false for NaN
    samples[impossible] = 0
    return int(impossible.sum())


def _split(samples: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    for start in range(0, len(samples), longest):
        yield samples[start : start + longest]


def _name(source: Source) -> str:
    if isinstance(source, np.ndarray):
        return "array"
    return str(getattr(source, "name", "audio stream") if hasattr(source, "read") else source)


@contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Puts the source's name in front of the sentence of any AudioError."""
    try:
        yield
    except AudioError as error:
        raise AudioError(f"{_name(source)}: {error}") from error.__cause__
