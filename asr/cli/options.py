"""Options that several commands have."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.errors import RillError

if TYPE_CHECKING:
    from asr.model.latency import Latency


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class EngineName(str, Enum):
    auto = "auto"
    torch = "torch"
    onnx = "onnx"


Checkpoint = Annotated[
    str | None,
    typer.Option(metavar="NAME|DIR", help="A checkpoint that `asr models` lists, or its folder; else the shipped one."),
]
LatencyOption = Annotated[
    str | None,
    typer.Option(
        "--latency",
        metavar="NAME|C,R",
        help="fast, balanced, accurate or offline; or the chunk and the look-ahead in "
        "frames, such as 16,8. A higher latency is more accurate.",
    ),
]
NoLM = Annotated[bool, typer.Option("--no-lm", help="Greedy text from the characters alone: any word, more mistakes.")]
Hotwords = Annotated[
    list[str] | None,
    typer.Option(
        "--hotword",
        metavar="WORDS",
        help='A word or phrase to expect, "rill" or "new york:12" (more than the usual '
        "bonus of 8). May be given several times.",
    ),
]
Plain = Annotated[bool, typer.Option("--plain", help="Raw words: no punctuation, no capitals.")]
Numerals = Annotated[bool, typer.Option("--numerals", help="Numbers, sums of money and times in digits (English).")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where the model runs; auto: on a GPU if there is one.")]
MicrophoneOption = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="The microphone: its number, or a part of its name or of its description."
    ),
]
Engine = Annotated[
    EngineName,
    typer.Option(
        "--engine", help="What computes the model: PyTorch, or ONNX Runtime on the CPU; auto: the faster one."
    ),
]
AllowHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="A name by which others reach this computer, beside localhost and IP addresses; * is any. May be given "
        "several times.",
    ),
]
Certificate = Annotated[Path | None, typer.Option("--ssl-certfile", metavar="PEM", help="With --ssl-keyfile: https.")]
CertificateKey = Annotated[Path | None, typer.Option("--ssl-keyfile", metavar="PEM")]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8", help="8-bit weights: about half the work live, as accurate. For LSTMs in ONNX Runtime, on the CPU."
    ),
]
Manifest = Annotated[
    Path,
    typer.Argument(
        metavar="MANIFEST", help="Utterances and their texts, JSON a line; or a folder with an index.jsonl."
    ),
]
Split = Annotated[str, typer.Option(help="Which utterances of a manifest that has splits.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many utterances of each corpus.")]


def parse_latency(text: str | None, live: bool = False) -> Latency:
    """What `--latency` says. Raises RillError, where the speech is `live` for full context, too."""
    from asr.model.latency import Latency

    try:
        return Latency.parse_live(text or "") if live else Latency.parse(text or "")
    except ValueError as error:
        raise RillError(str(error)) from error
