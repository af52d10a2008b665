"""flashlight's search without Python's lock, so that other threads run Python meanwhile.

flashlight's binding holds the lock for as long as it searches, which holds up everything else that a server does: with
48 speakers 95 % of finals came within 1.55 s without, 1.95 s with it. Where the library lets us, we call the function
that the binding calls, which knows nothing of Python.
"""
from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from flashlight.lib.text import flashlight_lib_text_decoder as binding
from flashlight.lib.text.decoder import LM, LexiconDecoder
from flashlight.lib.text.decoder.kenlm import KenLM

LIBRARY = "libflashlight-text.so.0"
STEP = "_ZN2fl3lib4text14LexiconDecoder10decodeStepEPKfii"  # LexiconDecoder::decodeStep(const float*, int, int)
VTABLE = "_ZTVN2fl3lib4text14LexiconDecoderE"
HEADER = 2 * ctypes.sizeof(ctypes.c_void_p)  # of a Python object; pybind11 puts the C++ object's address behind it
AT_ONCE = 10  # frames that are searched under the lock at once, where it must be


def decode_step(decoder: LexiconDecoder, model: LM, emissions: np.ndarray) -> None:
    """`decoder.decode_step` on float32 emissions (F, V), C-contiguous; `model` is the decoder's language model."""
    if isinstance(model, KenLM) and (found := _library()):  # others may be written in Python
        step, table = found
        address = ctypes.c_void_p.from_address(id(decoder) + HEADER).value
        # Each C++ object of a class begins with where its virtual functions are: this is one, or we leave it alone.
        if address and ctypes.c_void_p.from_address(address).value == table:
            step(address, emissions.ctypes.data, *emissions.shape)
            return
    for first in range(0, len(emissions), AT_ONCE):
        part = emissions[first:first + AT_ONCE]
        decoder.decode_step(part.ctypes.data, *part.shape)


@lru_cache(maxsize=1)
def _library() -> tuple[Callable[..., None], int] | None:
    """The function, and where its class's virtual functions are; None where they cannot be found."""
    try:
        library = ctypes.CDLL(str(Path(binding.__file__).with_name(LIBRARY)))
        step, table = getattr(library, STEP), ctypes.c_char.in_dll(library, VTABLE)
    except (OSError, AttributeError, ValueError):
        return None
    step.argtypes, step.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int], None
    return step, ctypes.addressof(table) + HEADER  # behind an offset and a type
