r"""How many cores, how much memory and how long: from a few measured figures (docs/benchmarks/scaling.md).

    python benchmarks/scaling.py --rtf 0.016 --streams 24 --worker 1100 --session 3.5 --start 4.2 --relay 23000 \
        --tasks 100

prints the figures and both tables as Markdown. `--help` says which benchmark measures each figure.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

HOURS = (1, 100, 10_000, 1_000_000)  # of an archive
CORES = (16, 256, 4096)  # that work on it
SPEAKERS = (10, 100, 1_000, 10_000, 100_000)
RECORDING = 1.0  # hours: the longest of an archive
SOUND = 64e3 / 8  # bytes a second of a compressed recording
TEXT = 1.0e6  # bytes of JSON and the other formats for an hour of speech
PCM = 32e3  # bytes a second of a live speaker: 16 kHz, 16 bits
MESSAGES = 10  # that a live speaker sends each second
FILL = 0.7  # share of a replica's places in use
REPLICA = 2  # cores of a replica


@dataclass(frozen=True)
class Figures:
    """Measured on one machine; the help of each argument says how."""

    rtf: float
    streams: float
    worker: float
    session: float
    start: float
    relay: float
    tasks: float


HELP = {
    "rtf": "core-seconds for a second of a recording (taskset -c 0 asr transcribe HALF_AN_HOUR, less its start)",
    "streams": "live speakers that a core bears (load.py, its result over its cores)",
    "worker": "MB of a process with a model: a worker, or a replica without speakers (VmHWM of ray::MapWorker)",
    "session": "MB of a live speaker (load.py)",
    "start": "seconds until a worker has its model (asr transcribe of one second)",
    "relay": "messages a second that a core's worth of Serve's proxy passes on (cluster.py)",
    "tasks": "recordings a second that Ray Data hands out (cluster.py)",
}


def archive(figures: Figures, hours: float, cores: int) -> float:
    """Hours until it is done. The last recordings do not end together (Graham's bound for any order of jobs, 1969)."""
    busy = max(hours * figures.rtf / cores, hours / RECORDING / figures.tasks / 3600)
    return busy + (1 - 1 / cores) * RECORDING * figures.rtf + figures.start / 3600


def live_cores(figures: Figures, speakers: int) -> int:
    """Cores of whole replicas."""
    return REPLICA * math.ceil(speakers / (FILL * figures.streams * REPLICA))


def proxy_cores(figures: Figures, speakers: int) -> int:
    return math.ceil(speakers * MESSAGES / (FILL * figures.relay))


def tables(figures: Figures) -> Iterable[str]:
    yield from ("| figure | measured |", "| --- | ---: |")
    yield from (f"| {HELP[field.name]} | {getattr(figures, field.name):g} |" for field in fields(figures))
    yield from (
        "",
        f"An archive of recordings of {RECORDING:g} h:",
        "",
        "| hours of sound | core-hours |"
        + "".join(f" on {cores} cores |" for cores in CORES)
        + f" read at {CORES[-1]} cores | memory | texts |",
        "| ---: |" + " ---: |" * (len(CORES) + 4),
    )
    for hours in HOURS:
        used = [min(cores, math.ceil(hours / RECORDING)) for cores in CORES]
        times = "".join(f" {time(archive(figures, hours, cores))} |" for cores in used)
        reading = SOUND * hours / archive(figures, hours, used[-1])
        work = hours * figures.rtf
        yield (
            f"| {hours:,} | {work:,.{0 if work >= 10 else 2}f} |{times} {size(reading)}/s "
            f"| {size(used[-1] * figures.worker * 1e6)} | {size(hours * TEXT)} |"
        )
    yield from (
        "",
        f"Live speakers, replicas of {REPLICA} cores, {FILL:.0%} of the places taken:",
        "",
        "| speakers | replicas | their cores | proxies' cores | core-hours a day | memory | sound in |",
        "|" + " ---: |" * 7,
    )
    for speakers in SPEAKERS:
        cores, proxies = live_cores(figures, speakers), proxy_cores(figures, speakers)
        memory = cores / REPLICA * figures.worker * 1e6 + speakers * figures.session * 1e6
        yield (
            f"| {speakers:,} | {cores // REPLICA:,} | {cores:,} | {proxies:,} | {24 * (cores + proxies):,} "
            f"| {size(memory)} | {size(speakers * PCM)}/s |"
        )


def time(hours: float) -> str:
    for unit, length in (("days", 24.0), ("h", 1.0), ("min", 1 / 60)):
        if hours >= 2 * length:
            return f"{hours / length:,.0f} {unit}"
    return f"{3600 * hours:.0f} s"


def size(number: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= length:
            return f"{number / length:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Figures):
        parser.add_argument(f"--{field.name}", type=float, required=True, help=HELP[field.name])
    print("\n".join(tables(Figures(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
