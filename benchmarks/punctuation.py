"""What punctuation and capitals are worth: F1 on text and on recognized speech, time and memory.

    python benchmarks/punctuation.py text runs/punctuation/held_out/*.txt      # whole documents, not learned from
    python benchmarks/punctuation.py speech MANIFEST … [--split dev] [--limit N]
    python benchmarks/punctuation.py cost

`text` judges the words of the documents, without pauses and with pauses as they are drawn in training. `speech`
recognizes recordings whose texts have punctuation and case, and judges recognized words (with their pauses) and those
of the reference side by side. `cost` is the time and memory of the tagger alone.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from asr.evaluation.punctuation import KINDS, Scores, aligned
from asr.inference.punctuation import load_punctuator
from asr.text.labels import documents, label
from asr.text.punctuator import Punctuator
from asr.text.sentences import CONTEXT, pauses

WORDS_PER_SECOND = 2.7  # of fluent talk
FINAL_WORDS = 11  # of a live final


def row(name: str, scores: Scores) -> str:
    return f"| {name} | {scores.words} | " + " | ".join(f"{scores.kinds[kind].f1:.3f}" for kind in KINDS) + " |"


def head(*first: str) -> str:
    names = [*first, "words", *KINDS]
    return f"| {' | '.join(names)} |\n|{' --- |' * len(names)}"


def text(punctuator: Punctuator, paths: Iterable[Path], limit: int | None) -> None:
    from asr.training.punctuation_data import draw_pauses

    print(head("F1 on text"))
    rng = np.random.default_rng(0)
    for path in paths:
        silent, timed = Scores(), Scores()
        with path.open(encoding="utf-8") as file:
            for document in documents(file):
                reference = label(document, punctuator.config.language, punctuator.config.abbreviations)
                silent.add(punctuator, reference)
                drawn = draw_pauses(rng, np.array(reference.marks))
                timed.add(punctuator, reference, [*drawn[:-1], np.nan])
                if limit and silent.words >= limit:
                    break
        print(row(path.stem, silent))
        print(row(f"{path.stem}, drawn pauses", timed), flush=True)


def speech(
    punctuator: Punctuator, checkpoint: str | None, manifests: Iterable[Path], split: str, limit: int | None
) -> None:
    import asr
    from asr.audio.manifest import load, of_split

    recognizer = asr.load(checkpoint, punctuate=False, device="cpu")
    heard, said = Scores(), Scores()
    for manifest in manifests:
        for utterance in of_split(manifest, split)[:limit]:
            reference = label([utterance.text], punctuator.config.language, punctuator.config.abbreviations)
            words = recognizer.decode_utterance(load(utterance)).words
            said.add(punctuator, reference)
            heard.add(punctuator, aligned(reference, [word.text for word in words]), pauses(words))
    print(head("F1 on speech"))
    print(row("words of the reference", said))
    print(row("recognized words", heard))


def cost(checkpoint: str | None) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    punctuator = load_punctuator(checkpoint)
    print(
        f"loading {time.perf_counter() - begun:.3f} s, "
        f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MiB"
    )
    words = [punctuator.config.words[at % 3000] for at in range(4000)]
    for name, size, new in (("a recording", 4000, 4000), ("live finals", CONTEXT + FINAL_WORDS, FINAL_WORDS)):
        begun = time.process_time()
        times = 4000 // size
        for _ in range(times):
            punctuator.tag(words[:size])
        each = (time.process_time() - begun) / (times * new)
        print(
            f"{name}: {1e3 * each:.3f} ms a word, {each * WORDS_PER_SECOND:.5f} of real time at "
            f"{WORDS_PER_SECOND} words/s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("text", "speech", "cost"))
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--tagger", type=Path, help="another file than the checkpoint's")
    parser.add_argument("--split", default="train")
    parser.add_argument(
        "--limit",
        type=int,
        help="words of each text, and the rest of the document that has the last; utterances of each manifest",
    )
    args = parser.parse_intermixed_args()
    if args.what == "cost":
        cost(args.checkpoint)
        return
    punctuator = Punctuator.load(args.tagger) if args.tagger else load_punctuator(args.checkpoint)
    if args.what == "text":
        text(punctuator, args.paths, args.limit)
    else:
        speech(punctuator, args.checkpoint, args.paths, args.split, args.limit)


if __name__ == "__main__":
    main()
