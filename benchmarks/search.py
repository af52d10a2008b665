"""The search against flashlight-text's lexicon decoder, which Rill used before: errors, processor time, loading.

    pip install ".[bench]"
    python benchmarks/search.py MODEL data/speech --split dev --checkpoint checkpoints/en-small

MODEL is the n-gram model from which the checkpoint's `ngram.safetensors` was packed, as KenLM reads it: ARPA or binary.
The network runs once; both search the same emissions with the same settings, without the LSTM language model. Processor
time is of this process. flashlight keeps six words a spelling, and tells whole histories apart.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from flashlight.lib.text.decoder import CriterionType, LexiconDecoder, LexiconDecoderOptions, SmearingMode, Trie
from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary

import asr
from asr.audio import manifest
from asr.decoding.beam import BeamDecoder
from asr.evaluation.scoring import score
from asr.evaluation.tune import hear
from asr.model import checkpoint

WORDS_PER_SPELLING = 6  # of flashlight's tree
LOADS = """
import sys
import time
from pathlib import Path
from asr.model import checkpoint
from asr.model.tokens import PHONEMES
from asr.decoding import ngram, tree
folder = Path({folder!r})
tokens = checkpoint.read_config(folder / "config.json").tokens[PHONEMES]
start = time.perf_counter()
model = ngram.read(folder / ngram.FILE)
lexicon = tree.load(folder / "lexicon.txt", folder / tree.FILE, model, tokens)
print(f"{{1000 * (time.perf_counter() - start):.0f}} ms, {{len(model)}} n-grams, "
      f"{{(folder / ngram.FILE).stat().st_size / len(model):.2f}} bytes each", flush=True)
sys.stdin.read(1)  # both processes have loaded
maps = Path("/proc/self/smaps").read_text().split(" " + str(folder.resolve()))[1:]
sizes = [sum(int(each.split(name + ":")[1].split()[0]) for each in maps) / 1024 for name in ("Rss", "Pss")]
print(f"{{sizes[0]:.0f}} MB resident, {{sizes[1]:.0f}} MB of them its share", flush=True)
"""


class Flashlight:
    """Its lexicon decoder over the same lexicon, model and settings."""

    def __init__(self, decoder: BeamDecoder, model: Path) -> None:
        lexicon, config, tokens = decoder.language_model.lexicon, decoder.config, decoder.tokens
        self.words, self.divided = lexicon.words, decoder.divided
        self.model = KenLM(str(model), Dictionary([*lexicon.words, "<unk>"]))
        trie = Trie(len(tokens), tokens.boundary_index)
        homophones: Counter[tuple[int, ...]] = Counter()
        for number, word in enumerate(lexicon.words):
            for spelling in lexicon.of(word):
                homophones[spelling] += 1
                if homophones[spelling] <= WORDS_PER_SPELLING:
                    trie.insert(list(spelling), number, float(decoder.language_model.unigrams[number]))
        trie.smear(SmearingMode.MAX)
        options = LexiconDecoderOptions(
            config.beam,
            config.beam_tokens,
            config.beam_threshold,
            config.lm_weight,
            config.word_score,
            -np.inf,
            0.0,
            False,
            CriterionType.CTC,
        )
        self.decoder = LexiconDecoder(
            options, trie, self.model, tokens.boundary_index, tokens.blank_index, -1, [], False
        )

    def __call__(self, emissions: np.ndarray) -> list[str]:
        scores = np.ascontiguousarray(emissions - self.divided, dtype=np.float32)
        best = self.decoder.decode(scores.ctypes.data, *scores.shape)[0]
        return [self.words[label] for label in best.words if label >= 0]


def ours(decoder: BeamDecoder) -> Callable[[np.ndarray], list[str]]:
    def search(emissions: np.ndarray) -> list[str]:
        found = decoder.search(decoder.config.beam)
        found.accept(emissions)
        return [decoder.words[label] for label in found.best().labels if label >= 0]

    return search


def timed(search: Callable[[np.ndarray], list[str]], emissions: Sequence[np.ndarray]) -> tuple[list[str], float]:
    """Texts, and processor seconds."""
    search(emissions[0])
    start = time.process_time()
    texts = [" ".join(search(each)) for each in emissions]
    return texts, time.process_time() - start


def loading(folder: Path) -> str:
    """What two processes say that load a checkpoint's files, one after the other: this one has not loaded them yet."""
    command = [sys.executable, "-c", LOADS.format(folder=str(folder))]
    processes, said = [], []
    for _ in range(2):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        processes.append(process)
        said.append(process.stdout.readline().strip())
    return "; ".join([said[1], *(process.communicate("\n")[0].strip() for process in processes)])


def at_once(search: Callable[[np.ndarray], list[str]], emissions: Sequence[np.ndarray], threads: int) -> float:
    """Seconds on the clock."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(search, emissions))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default=None)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--limit", type=int, default=None, help="utterances of each corpus")
    args = parser.parse_args()

    folder = checkpoint.find(args.checkpoint)
    print(f"Loading tree and n-gram: {loading(folder)}")
    recognizer = asr.load(args.checkpoint, punctuate=False)
    decoder = recognizer.engine.decoder(())
    assert isinstance(decoder, BeamDecoder)
    decoder.rescorer = None

    samples = hear(recognizer, manifest.read(args.manifest, args.split), args.limit)
    emissions = [sample.emissions[decoder.head] for sample in samples]
    seconds = sum(map(len, emissions)) * recognizer.engine.seconds_per_frame
    results = {}
    for name, search in (("flashlight", Flashlight(decoder, args.model)), ("this search", ours(decoder))):
        results[name] = timed(search, emissions)
    corpora = sorted({sample.corpus for sample in samples})
    print(
        f"{len(samples)} utterances, {seconds:.0f} s\n\nWER %        "
        + "".join(f"{each:>22}" for each in corpora)
        + f"{'all':>8}{'time/audio':>12}"
    )
    for name, (texts, cost) in results.items():
        rates = []
        for corpus in (*corpora, None):
            pairs = [
                (sample.reference, text)
                for sample, text in zip(samples, texts, strict=True)
                if corpus in (None, sample.corpus)
            ]
            rates.append(100 * score(*zip(*pairs, strict=True)).wer)
        print(
            f"{name:<13}"
            + "".join(f"{rate:22.2f}" for rate in rates[:-1])
            + f"{rates[-1]:8.2f}"
            + f"{cost / seconds:12.5f}"
        )
    print(f"ratio of processor times: {results['this search'][1] / results['flashlight'][1]:.2f}")
    if (os.cpu_count() or 1) > 1:
        one, two = (at_once(ours(decoder), emissions, threads) for threads in (1, 2))
        print(f"two threads: {one / two:.2f} times one")


if __name__ == "__main__":
    main()
