"""flashlight's search says the same with and without Python's lock, and without it lets other threads run."""
import threading
import time

import numpy as np
import pytest
import torch

from asr.decoding import unlocked
from asr.model.latency import PRESETS


@pytest.fixture(scope="module")
def emissions(recognizer, clips):
    mels = [recognizer.engine.frontend(torch.from_numpy(clip.samples)) for clip in clips[:6]]
    return [found[recognizer.engine.head] for found in recognizer.engine.emissions(mels, PRESETS["offline"])]


def paths(recognizer, emissions) -> list[tuple[list[int], list[int], float]]:
    found = []
    for scores in emissions:
        search = recognizer.engine.decoder(()).search(100)
        search.accept(scores)
        best, = search.finish()
        found.append((list(best.words), list(best.tokens), best.score))
    return found


def test_both_ways_find_the_same(recognizer, emissions, monkeypatch):
    free = paths(recognizer, emissions)
    monkeypatch.setattr(unlocked, "_library", lambda: None)
    assert paths(recognizer, emissions) == free


def test_other_threads_go_on(recognizer, emissions):
    if unlocked._library() is None:
        pytest.skip("this build of flashlight has no library to call")
    scores = np.concatenate(emissions * 20)
    seen = []

    def search() -> None:
        recognizer.engine.decoder(()).search(200).accept(scores)
        seen.append(-1)

    thread = threading.Thread(target=search)
    thread.start()
    while thread.is_alive():
        seen.append(len(seen))
        time.sleep(0.001)
    assert seen.index(-1) > 20  # under the lock it would be 1 or so: no other thread would run before the end


def test_what_is_no_such_decoder_is_left_alone(recognizer, emissions, monkeypatch):
    """Where objects are not laid out as expected, the binding itself is asked."""
    called = []
    monkeypatch.setattr(unlocked, "_library", lambda: (lambda *_: called.append(1), 0))
    free = paths(recognizer, emissions[:1])
    assert free[0][0] and not called
