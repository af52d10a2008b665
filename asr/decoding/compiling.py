"""Object code of the search's loops (`kernels`): compiled by numba once for a processor, then kept in a file.

A process that finds the file needs only the linker of llvmlite: numba itself would take half a second and 90 MB.

    library().compact(table(state), table(index))
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock, Timer
from types import SimpleNamespace

import llvmlite
import llvmlite.binding as llvm

from asr.atomic import replacing
from asr.decoding.layout import SIGNATURES

COMPILING_S = 1.0  # after which somebody who waits is told why
SOURCES = ("kernels.py", "layout.py", "compiling.py")
CALLED = {"memcpy", "memmove", "memset"}  # by object code, of the C library
DIGEST = 32  # bytes at the beginning of a file: SHA-256 of the others
MADV_DONTNEED = 4  # of Linux
# Start and end of the linker's mappings that cannot be written to, and never were; each mapping's facts are lines that
# begin with a capital.
UNWRITTEN = re.compile(r"^(\w+)-(\w+) r-.*/libllvmlite.*\n(?:[A-Z].*\n)*?Anonymous: +0 kB$", re.MULTILINE)
_lock = Lock()


@lru_cache(maxsize=1)
def _loaded() -> tuple[SimpleNamespace, bool]:
    """The functions, and whether this process has compiled them."""
    triple, cpu, features = llvm.get_default_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    key = hashlib.sha256("\n".join((llvmlite.__version__, triple, cpu, features)).encode())
    for source in SOURCES:
        key.update(Path(__file__).with_name(source).read_bytes())
    name = f"search-{key.hexdigest()[:16]}.o"
    code = next(filter(None, (_read(folder / name) for folder in _folders())), None)
    anew = code is None
    if code is None:
        timer = Timer(COMPILING_S, _announce)
        timer.daemon = True
        timer.start()
        try:
            code = compiled()
        finally:
            timer.cancel()
        _keep(code, name)
    return _linked(code), anew


def library() -> SimpleNamespace:
    """The functions of `layout.SIGNATURES`, which do not hold Python's lock; compiled where that was never done, of
    which a line is logged."""
    with _lock:
        return _loaded()[0]


def compiled_anew() -> bool:
    """Whether this process has had to compile the search."""
    with _lock:
        return _loaded()[1]


def _announce() -> None:
    logging.getLogger("asr.decoding.search").warning("Compiling the search for this processor, once: some 20 seconds.")


def _folders() -> Iterator[Path]:
    """Where object code may be kept: beside this file, or in the user's cache."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen)
        return
    yield Path(__file__).with_name("__pycache__")
    system = {"win32": os.environ.get("LOCALAPPDATA", "~\\AppData\\Local"), "darwin": "~/Library/Caches"}
    yield Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(system.get(sys.platform, "~/.cache"))) / "rill"


def _read(path: Path) -> bytes | None:
    """Object code as it was kept; None where it is not there, or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, code = data[:DIGEST], data[DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(code: bytes, name: str) -> None:
    """In the first folder that can be written to; where there is none, each process compiles for itself."""
    for folder in _folders():
        try:
            with replacing(folder / name) as part:
                part.write_bytes(hashlib.sha256(code).digest() + code)
            return
        except OSError:
            continue


def compiled() -> bytes:
    """Object code for this processor. It may call nothing but `CALLED`: neither numba's own functions nor Python's."""
    from asr.decoding.kernels import ENTRIES

    module = llvm.parse_assembly("")
    names = {}
    for name, function in ENTRIES.items():
        module.link_in(llvm.parse_assembly(function.inspect_llvm()))
        names[function.native_name] = name
    for function in module.functions:
        if function.name in names:
            function.name = names[function.name]
        elif not function.is_declaration:
            function.linkage = "internal"
    machine = _machine()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    foreign = {
        each.name for each in module.functions if each.is_declaration and not each.name.startswith("llvm.")
    } - CALLED
    assert not foreign, f"The search would call {', '.join(sorted(foreign))}: its loops may neither allocate nor raise."
    return bytes(machine.emit_object(module))


def _machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )


def _linked(code: bytes) -> SimpleNamespace:
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    functions: dict[str, Callable[..., int]] = {}
    for name, (tables, numbers) in SIGNATURES.items():
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.POINTER(ctypes.c_int64)] * tables, *[ctypes.c_int64] * numbers)
        functions[name] = kind(engine.get_function_address(name))
    _forget_linker()
    return SimpleNamespace(engine=engine, **functions)  # the code lives as long as the engine


def _forget_linker() -> None:
    """Give back the memory of LLVM's own code and constants, 45 MB that nobody needs any more; what is needed after all
    comes from the file again. On Linux; elsewhere it stays."""
    with suppress(OSError, AttributeError, ValueError):
        for mapping in UNWRITTEN.findall(Path("/proc/self/smaps").read_text()):
            start, end = (int(each, 16) for each in mapping)
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)
