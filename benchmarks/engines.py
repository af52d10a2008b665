"""PyTorch and ONNX Runtime, 32-bit and 8-bit, side by side on one core: speed, start, memory and, if asked, accuracy.

    python benchmarks/engines.py tests/clips/manifest.jsonl
    python benchmarks/engines.py data/speech --split dev --limit 20 --wer

Engines take turns on the same clips, and what counts is processor time, so that other programs slow all of them alike.
Speeds are of features, model and greedy text; word error rates are with the language model, full context.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np

import asr
from asr.audio import manifest
from asr.evaluation.evaluate import ALL, evaluate
from asr.inference.recognizer import Recognizer

RATE = 16_000
BLOCK = 2560  # samples: 160 ms
BATCH = 4  # clips at a time, offline
ENGINES = {"torch": ("torch", False), "onnx": ("onnx", False), "onnx int8": ("onnx", True)}
CHILD = """
import json, sys, time
import numpy as np
import asr
from asr.audio import manifest
from asr.inference import recognizer
checkpoint, engine, int8, path, split = json.loads(sys.argv[1])
begin = time.perf_counter()
loaded = asr.load(checkpoint, engine=engine, int8=int8, device="cpu", lm=False, threads=1)
took = time.perf_counter() - begin
status = lambda: int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024
before = status()
for utterance in manifest.read(path, split)[:10]:
    loaded.transcribe(manifest.load(utterance), sample_rate=16_000)
print(json.dumps([took, before, status()]))
"""


def offline(recognizer: Recognizer, sounds: list[np.ndarray]) -> None:
    engine = recognizer.engine
    engine.recognize([engine.frontend(sound) for sound in sounds], asr.model.latency.PRESETS["offline"])


def live(recognizer: Recognizer, sounds: list[np.ndarray]) -> None:
    for sound in sounds:
        stream = recognizer.stream(two_pass=False)
        for first in range(0, len(sound), BLOCK):
            stream.accept(sound[first : first + BLOCK])
        stream.finish()


def costs(recognizers: dict[str, Recognizer], sounds: list[np.ndarray], work, size: int) -> dict[str, float]:
    """Processor seconds a second of sound; each engine does the same clips in turn."""
    spent = dict.fromkeys(recognizers, 0.0)
    ends = [*range(0, len(sounds), size), len(sounds)]
    for part in (sounds[a:b] for a, b in pairwise(ends)):
        for name, recognizer in recognizers.items():
            begin = time.process_time()
            work(recognizer, part)
            spent[name] += time.process_time() - begin
    seconds = sum(map(len, sounds)) / RATE
    return {name: value / seconds for name, value in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--split")
    parser.add_argument("--checkpoint")
    parser.add_argument("--limit", type=int, default=20, help="clips whose time is taken, and of each corpus for --wer")
    parser.add_argument("--latency", default="balanced")
    parser.add_argument("--wer", action="store_true")
    args = parser.parse_args()
    utterances = manifest.read(args.manifest, args.split)
    every = max(1, len(utterances) // args.limit)
    sounds = sorted((manifest.load(utterance) for utterance in utterances[::every][: args.limit]), key=len)
    recognizers, children = {}, {}
    for name, (engine, int8) in ENGINES.items():
        options = json.dumps([args.checkpoint, engine, int8, args.manifest, args.split])
        run = subprocess.run([sys.executable, "-c", CHILD, options], capture_output=True, text=True, check=True)
        children[name] = json.loads(run.stdout)
        recognizers[name] = asr.load(
            args.checkpoint, engine=engine, int8=int8, device="cpu", lm=False, threads=1, latency=args.latency
        )
        offline(recognizers[name], sounds[:1])
    whole = costs(recognizers, sounds, offline, BATCH)
    streamed = costs(recognizers, sounds, live, 1)
    print(
        f"{sum(map(len, sounds)) / RATE:.0f} s of speech, one core; processor time over the sound's, and over torch's\n"
    )
    print(f"| engine | offline | ratio | live, {args.latency} | ratio | load, s | memory, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (load, _, memory) in children.items():
        print(
            f"| {name} | {whole[name]:.4f} | {whole[name] / whole['torch']:.2f} | {streamed[name]:.4f} | "
            f"{streamed[name] / streamed['torch']:.2f} | {load:.2f} | {memory:.0f} |"
        )
    if args.wer:
        print("\n| engine | words | word error rate, % |\n| --- | --- | --- |", flush=True)
        for name, (engine, int8) in ENGINES.items():
            recognizer = asr.load(args.checkpoint, engine=engine, int8=int8, device="cpu", threads=1)
            figures = evaluate(recognizer, utterances, limit=args.limit).corpora[ALL]
            print(f"| {name} | {figures.words} | {100 * figures.wer:.2f} |", flush=True)


if __name__ == "__main__":
    main()
