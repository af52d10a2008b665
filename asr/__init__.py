"""Rill: live and offline speech recognition with one bidirectional recurrent CTC model.

    import asr
    recognizer = asr.load()                                # the shipped checkpoint
    print(recognizer.transcribe("talk.mp4").text)

    stream = recognizer.stream(sample_rate=48_000)         # live: the same model, latency as a setting
    for block in blocks:
        for event in stream.accept(block):
            print(event.text)
    print(stream.finish())

Sound passes through the modules in this order: audio, features, model, decoder, recognizer. Names load when first used,
so that `import asr` costs nothing.
"""
from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.errors import AudioError, CheckpointError, DeviceError, HotwordError, ManifestError, RillError
    from asr.inference.recognizer import Recognizer, Stream, load
    from asr.text.results import Final, Partial, Transcript, Word

# ONNX Runtime reads this when it is imported. Without it, it writes a device id to the user's cache and looks up a
# telemetry host, before anybody can call `disable_telemetry_events`.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["AudioError", "CheckpointError", "DeviceError", "Final", "HotwordError", "ManifestError", "Partial",
           "Recognizer", "RillError", "Stream", "Transcript", "Word", "load"]

_HOMES = {**dict.fromkeys(("Recognizer", "Stream", "load"), "asr.inference.recognizer"),
          **dict.fromkeys(("Final", "Partial", "Transcript", "Word"), "asr.text.results")}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'asr' has no attribute '{name}'")
    value = getattr(import_module(_HOMES.get(name, "asr.errors")), name)
    globals()[name] = value
    return value
