"""Rill: live and offline speech recognition with one bidirectional recurrent CTC model.

    import asr
    recognizer = asr.load()                                # the shipped checkpoint
    print(recognizer.transcribe("talk.mp4").text)

    stream = recognizer.stream(sample_rate=48_000)         # live: the same model, latency as a setting
    for block in blocks:
        for event in stream.accept(block):
            print(event.text)
    print(stream.finish())

    asr.load_punctuator().punctuate("plain words of any origin")

Audio passes through the packages in this order: audio, model, decoding, text, inference. The names below are the public
interface; everything else may change. They load when first used, so that `import asr` costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.audio.reading import AudioWarning
    from asr.decoding.hotwords import Hotword
    from asr.errors import (
        AudioError,
        CheckpointError,
        DeviceError,
        HotwordError,
        LanguageModelError,
        ManifestError,
        RecipeError,
        RillError,
        TrainingError,
    )
    from asr.inference.endpoint import EndpointRules
    from asr.inference.live import LiveSession, Stats
    from asr.inference.punctuation import load_punctuator
    from asr.inference.recognizer import Recognizer, load
    from asr.inference.stream import Stream
    from asr.model.integrity import CheckpointWarning
    from asr.model.latency import Latency
    from asr.text.punctuator import Punctuator
    from asr.text.results import Alternative, Final, Partial, Transcript, Word

# ONNX Runtime reads this when it is imported. Without it, it writes a device id to the user's cache and looks up a
# telemetry host, before anybody can call `disable_telemetry_events`.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = [
    "Alternative",
    "AudioError",
    "AudioWarning",
    "CheckpointError",
    "CheckpointWarning",
    "DeviceError",
    "EndpointRules",
    "Final",
    "Hotword",
    "HotwordError",
    "LanguageModelError",
    "Latency",
    "LiveSession",
    "ManifestError",
    "Partial",
    "Punctuator",
    "RecipeError",
    "Recognizer",
    "RillError",
    "Stats",
    "Stream",
    "TrainingError",
    "Transcript",
    "Word",
    "load",
    "load_punctuator",
]

_MODULES = {
    "AudioWarning": "asr.audio.reading",
    "CheckpointWarning": "asr.model.integrity",
    "Hotword": "asr.decoding.hotwords",
    "EndpointRules": "asr.inference.endpoint",
    "Latency": "asr.model.latency",
    "Punctuator": "asr.text.punctuator",
    "Stream": "asr.inference.stream",
    "load_punctuator": "asr.inference.punctuation",
    **dict.fromkeys(("LiveSession", "Stats"), "asr.inference.live"),
    **dict.fromkeys(("Recognizer", "load"), "asr.inference.recognizer"),
    **dict.fromkeys(("Alternative", "Final", "Partial", "Transcript", "Word"), "asr.text.results"),
}  # others: asr.errors


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'asr' has no attribute '{name}'")
    value = getattr(import_module(_MODULES.get(name, "asr.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
