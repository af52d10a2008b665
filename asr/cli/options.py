"""Options that several commands have."""
from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class EngineName(str, Enum):
    auto = "auto"
    torch = "torch"
    onnx = "onnx"


Checkpoint = Annotated[str | None, typer.Option(
    metavar="DIR", help="A checkpoint's folder, instead of the one that is shipped.")]
LatencyOption = Annotated[str | None, typer.Option(
    "--latency", metavar="NAME|C,R", help="fast, balanced, accurate or offline; or the chunk and the look-ahead in "
                                          "frames, such as 16,8. Higher is better and later.")]
NoLM = Annotated[bool, typer.Option("--no-lm", help="Greedy text from the characters alone: any word, more mistakes.")]
Hotwords = Annotated[list[str] | None, typer.Option(
    "--hotword", metavar="WORDS", help="A word or phrase to expect, \"rill\" or \"new york:12\" (more than the usual "
                                       "bonus of 8). May be given several times.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where the model runs; auto: on a GPU if there is one.")]
Engine = Annotated[EngineName, typer.Option("--engine", help="What computes the model: PyTorch, or ONNX Runtime on the "
                                                             "CPU; auto: the faster one.")]
Int8 = Annotated[bool, typer.Option("--int8", help="8-bit weights: about half the work live, as accurate. CPU only.")]
Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="Utterances and their texts, JSON a line; or a "
                                                                  "folder with an index.jsonl.")]
Split = Annotated[str, typer.Option(help="Which utterances of a manifest that has splits.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only so many utterances of each corpus.")]
