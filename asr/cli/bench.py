"""`asr bench`: how fast recognition is on this computer."""

from __future__ import annotations

import platform
import time

from rich import box
from rich.table import Table

from asr.cli.options import Checkpoint, Device, DeviceOption, Engine, EngineName, Int8
from asr.cli.output import markdown, note

RECORDING_S = 300
LIVE_REPEATS = 2  # of the sample


def bench(
    checkpoint: Checkpoint = None,
    device: DeviceOption = Device.auto,
    engine: Engine = EngineName.auto,
    int8: Int8 = False,
) -> None:
    """Measure loading, recordings and live speech on this computer, with real speech, in about a minute."""
    begin = time.perf_counter()
    from asr.inference.recognizer import Recognizer, load

    def loaded(lm: bool, threads: int | None = None) -> Recognizer:
        return load(checkpoint, lm=lm, device=device.value, engine=engine.value, int8=int8, threads=threads)

    recognizer = loaded(lm=True)
    loading_s = time.perf_counter() - begin

    import numpy as np

    from asr.audio.reading import SAMPLE_RATE, read_blocks
    from asr.audio.sample import sample
    from asr.decoding.compiling import compiled_anew
    from asr.evaluation.speed import live, offline
    from asr.model.hardware import cores, processor
    from asr.model.latency import PRESETS

    if compiled_anew():
        note("Loading includes what happens once: the search was compiled for this processor.")
    speech = np.concatenate(list(read_blocks(sample())))
    recording = np.resize(speech, RECORDING_S * SAMPLE_RATE)
    table = Table(box=box.MARKDOWN)
    for heading in ("what", "speed", "detail"):
        table.add_column(heading, no_wrap=True)
    table.add_row("loading, with language model", f"{loading_s:.1f} s", "imports and files")
    for name, each in (("greedy", loaded(lm=False)), ("language model", recognizer)):
        note(f"A recording of {RECORDING_S} s, {name} …")
        offline(each, speech)  # the first one is slower
        factor = offline(each, recording)
        table.add_row(f"recordings, {name}", f"{1 / factor:.0f} × real time", f"real-time factor {factor:.4f}")
    recognizer = loaded(lm=True, threads=1)
    for name, latency in PRESETS.items():
        if latency.live:
            note(f"Live speech, {name} …")
            speed = live(recognizer, np.tile(speech, LIVE_REPEATS), latency)
            within = f"95 % of blocks of 160 ms done within {speed.p95_ms:.0f} ms"
            table.add_row(f"live, {name}", f"{speed.share:.1%} of a core", within)
    print(f"{processor()}, {cores()} cores, {platform.system()}; checkpoint {recognizer.engine.checkpoint.config.name}")
    print(f"\n{markdown(table)}")
