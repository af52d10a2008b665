"""`asr evaluate`: word error rates, confidence and speed as a table, and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from asr.cli.options import (
    Checkpoint,
    Device,
    DeviceOption,
    Engine,
    EngineName,
    Hotwords,
    Int8,
    LatencyOption,
    Limit,
    Manifest,
    NoLM,
    Split,
    parse_latency,
)
from asr.cli.output import markdown
from asr.cli.progress import AudioProgress

if TYPE_CHECKING:
    from asr.evaluation.evaluate import EvaluationReport


def evaluate(
    manifest: Manifest,
    split: Split = "dev",
    latency: LatencyOption = None,
    streamed: Annotated[
        bool,
        typer.Option("--streamed", help="Through a live stream, without the second pass: how accurate live text is."),
    ] = False,
    no_lm: NoLM = False,
    hotword: Hotwords = None,
    checkpoint: Checkpoint = None,
    device: DeviceOption = Device.auto,
    engine: Engine = EngineName.auto,
    int8: Int8 = False,
    limit: Limit = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="The figures as JSON.")] = None,
) -> None:
    """Word error rates, confidence and speed on utterances whose texts are known."""
    chosen = parse_latency(latency or ("balanced" if streamed else "offline"), live=streamed)
    from asr.audio.manifest import of_split
    from asr.audio.reading import SAMPLE_RATE
    from asr.evaluation.evaluate import evaluate, scorable
    from asr.inference.recognizer import load

    recognizer = load(
        checkpoint, hotwords=hotword or (), lm=not no_lm, device=device.value, engine=engine.value, int8=int8
    )
    utterances = of_split(manifest, split)
    lengths = [utterance.samples for members in scorable(utterances, limit).values() for utterance in members]
    total = None if None in lengths else sum(filter(None, lengths)) / SAMPLE_RATE
    with AudioProgress(total) as progress:
        report = evaluate(recognizer, utterances, chosen, streamed, limit=limit, on_progress=progress.add)
    print(markdown(table(report)))
    print(f"{report.left_out} utterances with digits left out: what their speakers said is not written.")
    if output:
        settings = {
            "checkpoint": recognizer.engine.checkpoint.config.name,
            "manifest": str(manifest),
            "split": split,
            "latency": [chosen.chunk, chosen.look_ahead],
            "streamed": streamed,
            "lm": recognizer.engine.language_model is not None,
            "hotwords": [h.phrase for h in recognizer.hotwords],
        }
        text = json.dumps(settings | report.to_dict(), indent=1, ensure_ascii=False)
        output.write_text(text + "\n", encoding="utf-8")


def table(report: EvaluationReport) -> Table:
    """A row for each corpus, and one for all where there are several."""
    from asr.evaluation.evaluate import ALL

    found = Table(box=box.MARKDOWN)
    for heading in (
        "corpus",
        "utterances",
        "words",
        "sub",
        "del",
        "ins",
        "WER % [95 % interval]",
        "CER % [95 % interval]",
        "RTF",
        "AUROC",
        "NCE",
    ):
        found.add_column(heading, justify="left" if heading == "corpus" else "right", no_wrap=True)
    for corpus, f in report.corpora.items():
        if corpus != ALL or len(report.corpora) > 2:
            counts = map(str, (f.utterances, f.words, f.substitutions, f.deletions, f.insertions))
            rates = (
                f"{100 * rate:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
                for rate, low, high in ((f.wer, f.wer_low, f.wer_high), (f.cer, f.cer_low, f.cer_high))
            )
            found.add_row(corpus, *counts, *rates, f"{f.rtf:.3f}", f"{f.auroc:.3f}", f"{f.nce:.3f}")
    return found
