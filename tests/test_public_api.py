"""The public interface: a change of a name or a signature is a decision, so it must be made here, too."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import asr

INTERNAL_CONSTRUCTORS = {"Punctuator", "Recognizer", "Stream"}  # functions make them: `load`, …
ALIASES = {"Event", "Hotwords", "LatencyLike", "ModelRunner", "Pending", "Source", "Tag"}  # no public classes
SNAPSHOT = Path(__file__).with_suffix(".txt")


def interface() -> list[str]:
    """Every public name, with the signatures of functions, constructors and methods, a line each."""
    lines = []
    for name in asr.__all__:
        value = getattr(asr, name)
        if inspect.isfunction(value):
            lines.append(f"{name}{signature(value)}")
        elif issubclass(value, Exception):
            lines.append(f"{name}({value.__base__.__name__})")
        else:
            lines.append(f"{name}" if name in INTERNAL_CONSTRUCTORS else f"{name}{signature(value)}")
            lines += [
                f"{name}.{each}{kind(member)}"
                for each, member in vars(value).items()
                if not each.startswith("_") and kind(member)
            ]
    return lines


def kind(member: object) -> str:
    if isinstance(member, property):
        returns = inspect.signature(member.fget).return_annotation
        return f" -> {returns}" + (" (can be set)" if member.fset else "")
    if isinstance(member, classmethod | staticmethod):
        member = member.__func__
    return str(signature(member)) if inspect.isfunction(member) else ""


def signature(value: object) -> str:
    return re.sub(r"'", "", re.sub(r"\((?:self|cls)(?:, )?", "(", str(inspect.signature(value))))


def test_the_interface_is_as_agreed():
    assert interface() == SNAPSHOT.read_text(encoding="utf-8").splitlines()


def test_signatures_take_public_types_only():
    known = {
        *asr.__all__,
        *ALIASES,
        "Any",
        "Callable",
        "Sequence",
        "Iterator",
        "PathLike",
        "None",
        "True",
        "False",
        "Exception",
        "UserWarning",
    }
    for line in interface():
        assert set(re.findall(r"\b[A-Z]\w+", line.partition("(")[2])) - known == set(), line


def test_every_public_name_says_what_it_is():
    for name in asr.__all__:
        assert inspect.getdoc(getattr(asr, name)), name
    assert set(asr.__all__) <= set(dir(asr))


@pytest.mark.e2e
def test_importing_costs_nothing():
    code = "import sys, asr; assert not {'torch', 'numpy', 'onnxruntime'} & set(sys.modules); assert 'load' in dir(asr)"
    subprocess.run([sys.executable, "-c", code], check=True)
