"""What punctuation and capitals are worth: F1 on text and on recognized speech, time and memory.

    python benchmarks/punctuation.py text runs/punctuation/held_out/*.txt      # whole documents, not learned from
    python benchmarks/punctuation.py live runs/punctuation/held_out/*.txt
    python benchmarks/punctuation.py speech MANIFEST … [--split dev] [--limit N]
    python benchmarks/punctuation.py cost

`text` judges the words of the documents, without pauses and with pauses as they are drawn in training. `live` cuts them
where a stream's endpointer would, and judges the marks after the last words of finals. `speech`
recognizes recordings whose texts have punctuation and case, and judges recognized words (with their pauses) and those
of the reference side by side. `cost` is the time and memory of the tagger alone.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from asr.evaluation.punctuation import KINDS, Counts, Scores, aligned
from asr.inference.endpoint import Endpointer, EndpointRules
from asr.inference.punctuation import load_punctuator
from asr.text.labels import IGNORE, MARK_OF, NONE, SENTENCE_ENDS, documents, label
from asr.text.punctuator import Punctuator
from asr.text.results import Word
from asr.text.sentences import CONTEXT, Sentences, pauses

WORDS_PER_SECOND = 2.7  # of fluent talk
FRAME_S, WORD_S = 0.04, 0.32  # of an endpointer; how long every word lasts
FINAL_WORDS = 11  # of a live final


def tagger_of(checkpoint: str | None, tagger: Path | None) -> Punctuator:
    return Punctuator.load(tagger) if tagger else load_punctuator(checkpoint)


def row(name: str, scores: Scores) -> str:
    return f"| {name} | {scores.words} | " + " | ".join(f"{scores.kinds[kind].f1:.3f}" for kind in KINDS) + " |"


def head(*first: str) -> str:
    names = [*first, "words", *KINDS]
    return f"| {' | '.join(names)} |\n|{' --- |' * len(names)}"


def text(punctuator: Punctuator, paths: Sequence[Path], limit: int | None) -> None:
    from asr.training.punctuation_data import draw_pauses

    print(head("F1 on text"))
    rng = np.random.default_rng(0)
    together = Scores(), Scores()
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
        for every, one in zip(together, (silent, timed), strict=True):
            every.include(one)
    if len(paths) > 1:
        print(row("together", together[0]))
        print(row("together, drawn pauses", together[1]))


def live(punctuator: Punctuator, paths: Sequence[Path], limit: int | None) -> None:
    from asr.training.punctuation_data import draw_pauses

    rng = np.random.default_rng(0)
    found: list[tuple[str, int, int, int]] = []  # what ended a final; the mark there, what it is without, and with it
    for path in paths:
        said = 0
        with path.open(encoding="utf-8") as file:
            for document in documents(file):
                reference = label(document, punctuator.config.language, punctuator.config.abbreviations)
                untold, told = Sentences(punctuator), Sentences(punctuator)
                at = 0
                for words, silence in utterances(reference.words, draw_pauses(rng, np.array(reference.marks))):
                    at += len(words)
                    lasts = untold.write(words)[-1], told.write(words, silence=silence)[-1]
                    before, after = (MARK_OF.get(word.display[-1], NONE) for word in lasts)
                    kind = "0.8 s" if silence >= 0.8 else "0.3 s" if silence >= 0.3 else "less"
                    if reference.marks[at - 1] != IGNORE:
                        found.append((kind, reference.marks[at - 1], before, after))
                said += at
                if limit and said >= limit:
                    break
    print(f"| silence | finals | sentence ends, F1 | told of it | same mark | told of it |\n|{' --- |' * 6}")
    for kind in ("0.8 s", "0.3 s", "less"):
        marks, *guesses = np.array([each[1:] for each in found if each[0] == kind]).T
        ends = [Counts(), Counts()]
        for counts, guess in zip(ends, guesses, strict=True):
            is_end, seems_end = np.isin(marks, SENTENCE_ENDS), np.isin(guess, SENTENCE_ENDS)
            counts.reference, counts.found = int(is_end.sum()), int(seems_end.sum())
            counts.right = int((is_end & seems_end).sum())
        figures = [counts.f1 for counts in ends] + [float(np.mean(marks == guess)) for guess in guesses]
        print(f"| {kind} | {len(marks)} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |")


def utterances(words: Sequence[str], silences: np.ndarray) -> Iterator[tuple[list[Word], float]]:
    """Words as a stream's rules part them when so many seconds of silence follow each, and the least silence that is
    known to follow each part. What is left at the end of the document is none."""
    endpointer = Endpointer(EndpointRules(), FRAME_S)
    starts = np.cumsum([0.0, *(WORD_S + silences)]).tolist()
    said = [Word(word, start, start + WORD_S, 1.0) for word, start in zip(words, starts[:-1], strict=True)]
    runs = np.stack([np.full(len(silences), WORD_S), silences], axis=1) / FRAME_S
    activity = np.repeat(np.tile([True, False], len(silences)), runs.round().astype(int).ravel())
    begin = first = 0
    frames = endpointer.next_decision(activity[:0])
    while begin + frames <= len(activity):
        heard = activity[begin : begin + frames]
        cut = endpointer.decide(heard)
        if not cut:
            frames = endpointer.next_decision(heard)
            continue
        begin += cut.frame
        stop = first + sum(word.start < begin * FRAME_S for word in said[first : first + len(heard)])
        if stop > first:
            yield said[first:stop], (cut.silence or 0) * FRAME_S
        first, frames = stop, endpointer.next_decision(activity[:0])


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


def cost(checkpoint: str | None, tagger: Path | None) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    punctuator = tagger_of(checkpoint, tagger)
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
    parser.add_argument("what", choices=("text", "live", "speech", "cost"))
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
        cost(args.checkpoint, args.tagger)
        return
    punctuator = tagger_of(args.checkpoint, args.tagger)
    if args.what in ("text", "live"):
        (text if args.what == "text" else live)(punctuator, args.paths, args.limit)
    else:
        speech(punctuator, args.checkpoint, args.paths, args.split, args.limit)


if __name__ == "__main__":
    main()
