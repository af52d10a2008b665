"""Word error rates and speed of this package beside PocketSphinx and Whisper, on the same utterances in one run.

    python benchmarks/peers.py MANIFEST [--limit 50] [--whisper base]

Each recognizer decodes whole utterances, one at a time, one thread a process. WER is over text as Whisper's English
normalizer leaves it, whoever wrote it, with 95 % bootstrap intervals over utterances; the real-time factor (RTF) is
processor time of decoding over audio time, models already loaded. Utterances with digits are left out: what their
speaker said is not written. All come with `pip install rill-asr[bench]`: PocketSphinx runs with the general US English
model bundled in it, Whisper through faster-whisper, in 8 bits, with a beam of five sentences and English given.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from whisper_normalizer.english import EnglishTextNormalizer

from asr.audio.manifest import Utterance, by_corpus, load, of_split
from asr.audio.reading import SAMPLE_RATE
from asr.evaluation.scoring import Score, bootstrap_interval, score
from asr.model.checkpoint import DEFAULT
from asr.model.latency import PRESETS
from asr.text.normalize import has_digits

Recognize = Callable[[np.ndarray], str]  # mono float32 at 16 kHz -> text
recognize: Recognize  # a worker process's own


def ours(checkpoint: str, lm: bool, latency: str) -> Recognize:
    import asr

    recognizer = asr.load(checkpoint, lm=lm, device="cpu", threads=1, punctuate=False)
    return lambda samples: recognizer.decode_utterance(samples, latency).text


def pocketsphinx() -> Recognize:
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=SAMPLE_RATE)

    def recognize(samples: np.ndarray) -> str:
        decoder.start_utt()
        decoder.process_raw((samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        # Fillers go: <sil>, [NOISE], ++BREATH++; "the(2)" is the second pronunciation of "the".
        return re.sub(r"<\S+>|\[\S+\]|\+\+\S+\+\+|\(\d+\)", "", found.hypstr if found else "")

    return recognize


def whisper(model: str) -> Recognize:
    from faster_whisper import WhisperModel

    found = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=1)

    def recognize(samples: np.ndarray) -> str:
        segments, _ = found.transcribe(samples, language="en", beam_size=5)
        return " ".join(segment.text.strip() for segment in segments)

    return recognize


def start_worker(make: Callable[[], Recognize]) -> None:
    global recognize
    recognize = make()


def decode(utterance: Utterance) -> tuple[str, float, float]:
    """Recognized text, processor seconds it took and seconds of sound."""
    samples = load(utterance)
    start = time.process_time()
    text = recognize(samples)
    return text, time.process_time() - start, len(samples) / SAMPLE_RATE


def cell(result: Score) -> str:
    low, high = bootstrap_interval(result.utterance_errors, result.utterance_words)
    return f"{100 * result.wer:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, help="utterances of each corpus (default: all)")
    parser.add_argument("--checkpoint", default=DEFAULT, help="of this package (default: the shipped one)")
    parser.add_argument("--whisper", metavar="MODEL", help="a model's name or folder, as faster-whisper takes it")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=1, help="processes (default: 1)")
    args = parser.parse_args()

    everything = of_split(args.manifest, args.split)
    usable = [utterance for utterance in everything if not has_digits(utterance.text)]
    if not usable:
        parser.error(f"{args.manifest} has no utterance without digits in its split {args.split}")
    corpora = by_corpus(usable, args.limit)
    chosen = [utterance for members in corpora.values() for utterance in members]
    systems: dict[str, Callable[[], Recognize]] = {
        f"{how}, {latency}": partial(ours, args.checkpoint, lm, latency)
        for how, lm in (("language model", True), ("greedy", False))
        for latency in reversed(PRESETS)
    }
    systems["PocketSphinx"] = pocketsphinx
    if args.whisper:
        systems[f"Whisper {Path(args.whisper).name}, 8 bits"] = partial(whisper, args.whisper)
    normalize = EnglishTextNormalizer()

    print(f"{len(chosen)} utterances; {len(everything) - len(usable)} with digits left out. WER % [95 % interval].\n")
    print(f"| system | {' | '.join(corpora)} | all | RTF |\n|" + " --- |" * (len(corpora) + 3))
    for system, make in systems.items():
        with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn"), start_worker, (make,)) as pool:
            decoded = dict(zip(chosen, pool.map(decode, chosen), strict=True))
        cells = []
        for members in (corpora | {"all": chosen}).values():
            texts = [normalize(decoded[utterance][0]) for utterance in members]
            cells.append(cell(score([normalize(utterance.text) for utterance in members], texts)))
        took, lasted = (
            sum(column) for column in zip(*((took, lasted) for _, took, lasted in decoded.values()), strict=True)
        )
        print(f"| {system} | {' | '.join(cells)} | {took / lasted:.3f} |", flush=True)


if __name__ == "__main__":
    main()
