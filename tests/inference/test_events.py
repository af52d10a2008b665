"""The events of real audio are those of the log: a change of the live core that changes any of them is no refactoring.

After a change of the model or the search, write the log anew: python -m tests.inference.test_events
"""

from pathlib import Path

import numpy as np

from tests.support.streams import RATE, silence

LOG = Path(__file__).with_name("events.txt")
CLIPS = {"kathleen-0": "fast", "commonvoice-2": "balanced"}
BLOCK = RATE // 10  # samples: 100 ms


def events(recognizer, clips) -> list[str]:
    """A line for each event: the clip, the block after which it came, the kind, the start, the text."""
    lines = []
    for clip in clips:
        if latency := CLIPS.get(clip.path.stem):
            samples = np.concatenate([silence(1), clip.samples, silence(1)])
            stream = recognizer.stream(latency=latency)
            blocks = [
                *(stream.accept(block) for block in np.split(samples, range(BLOCK, len(samples), BLOCK))),
                stream.finish(),
            ]
            lines += [
                f"{clip.path.stem} {i} {type(event).__name__} {event.start:.2f} {event.text}"
                for i, block in enumerate(blocks)
                for event in block
            ]
    return lines


def test_events_are_those_of_the_log(recognizer, clips):
    assert events(recognizer, clips) == LOG.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    import asr
    from tests.conftest import read_clips

    LOG.write_text("\n".join(events(asr.load(device="cpu", punctuate=False), read_clips())) + "\n", encoding="utf-8")
