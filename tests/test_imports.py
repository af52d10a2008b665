"""Who may import whom, lazily or not; what the docs draw is what the code does.

errors, atomic, schema < audio, text < model < decoding < inference, training < evaluation, server, demo < cli
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = (
    ("errors", "atomic", "schema"),
    ("audio", "text"),
    ("model",),
    ("decoding",),
    ("inference", "training"),
    ("evaluation", "server", "demo"),
    ("cli",),
)
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}

# Third-party packages, and where alone they may be imported. PyTorch defines and trains the model, and is one of the
# two engines that run it.
ONLY_IN = {
    "rich": ("cli",),
    "typer": ("cli",),
    "fastapi": ("server",),
    "uvicorn": ("server",),
    "gradio": ("demo",),
    "lhotse": ("training",),
    "tensorboard": ("training",),
    "torch": ("model.acoustic", "model.checkpoint", "model.hardware", "model.torch_runtime", "training"),
    "torchaudio": ("training",),
    "scipy": ("training",),
}

# (importing module, what it imports): to be resolved.
EXCEPTIONS = {("test_rescoring", "tests.decoding.test_beam")}


def modules(root: Path = ROOT) -> dict[str, ast.Module]:
    """Every module below `asr/` by its name without "asr.", a package by its own name."""
    found = {}
    for path in sorted((root / "asr").rglob("*.py")):
        parts = path.relative_to(root / "asr").with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text("utf-8"))
    return found


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of every import anywhere in a module; the name is "" where the module itself is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)


def inner(tree: ast.Module, known: set[str]) -> Iterator[tuple[str, str]]:
    """(module below `asr`, name taken from it) of every import of our own."""
    for module, name in imports(tree):
        if module.partition(".")[0] == "asr":
            target = module.removeprefix("asr").removeprefix(".")
            submodule = f"{target}.{name}".strip(".")
            yield (submodule, "") if name and submodule in known else (target, name)


def package(module: str) -> str:
    return module.partition(".")[0]


def broken_levels(found: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """Imports of a higher level, or of another package on the same one."""
    return {
        (module, target)
        for module, tree in found.items()
        if package(module) in LEVEL_OF
        for target, _ in inner(tree, set(found))
        if package(target) in LEVEL_OF
        if package(module) != package(target) and LEVEL_OF[package(target)] >= LEVEL_OF[package(module)]
    }


def cycles(found: dict[str, ast.Module]) -> set[str]:
    """Modules that import themselves by way of others."""
    graph = {
        module: {target for target, _ in inner(tree, set(found)) if target and target != module}
        for module, tree in found.items()
        if module
    }
    reached = {module: set(targets) for module, targets in graph.items()}
    grown = True
    while grown:
        grown = False
        for targets in reached.values():
            more = set().union(*(reached.get(target, set()) for target in targets)) - targets
            targets |= more
            grown |= bool(more)
    return {module for module, targets in reached.items() if module in targets}


def private_crossings(found: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """Underscored names or modules that another package takes, by import or as an attribute of a module."""
    crossing = set()
    for module, tree in found.items():
        aliases: dict[str, str] = {}  # names by which this module knows modules of other packages
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and package(node.module or "") == "asr":
                for alias in node.names:
                    target = f"{node.module}.{alias.name}".removeprefix("asr.")
                    if package(target) == package(module):
                        continue
                    if any(part.startswith("_") and not part.startswith("__") for part in target.split(".")):
                        crossing.add((module, target))
                    if target in found:
                        aliases[alias.asname or alias.name] = target
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in aliases
                and node.attr.startswith("_")
                and not node.attr.startswith("__")
            ):
                crossing.add((module, f"{aliases[node.value.id]}.{node.attr}"))
    return crossing


def misplaced(found: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """Third-party packages imported, and `print` called, where they do not belong."""
    wrong = set()
    for module, tree in found.items():
        for target, name in imports(tree):
            if package(target) == "asr":
                continue
            third_party = "tensorboard" if "tensorboard" in (*target.split("."), name) else package(target)
            places = ONLY_IN.get(third_party, (package(module),))
            if module and not any(module == place or module.startswith(f"{place}.") for place in places):
                wrong.add((module, third_party))
        if package(module) != "cli" and any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            for node in ast.walk(tree)
        ):
            wrong.add((module, "print"))
    return wrong


@pytest.fixture(scope="module")
def found() -> dict[str, ast.Module]:
    return modules()


def test_every_package_has_a_level(found: dict[str, ast.Module]) -> None:
    assert {package(module) for module in found} - set(LEVEL_OF) <= {"", "cluster"}  # `serve run asr.cluster:app`


def test_imports_go_downwards(found: dict[str, ast.Module]) -> None:
    assert broken_levels(found) - EXCEPTIONS == set()


def test_no_module_imports_itself_by_way_of_others(found: dict[str, ast.Module]) -> None:
    assert cycles(found) == set()


def test_underscored_names_stay_in_their_package(found: dict[str, ast.Module]) -> None:
    assert private_crossings(found) == set()


def test_third_party_packages_stay_in_their_place(found: dict[str, ast.Module]) -> None:
    assert misplaced(found) - EXCEPTIONS == set()


def test_exceptions_are_still_needed(found: dict[str, ast.Module]) -> None:
    assert broken_levels(found) | misplaced(found) >= {
        (module, target) for module, target in EXCEPTIONS if not module.startswith("test_")
    }
    for third_party, places in ONLY_IN.items():
        for place in places:
            assert any(
                third_party in f"{target}.{name}".split(".")
                for module, tree in found.items()
                if module == place or module.startswith(f"{place}.")
                for target, name in imports(tree)
            ), f"{place} no longer imports {third_party}"


def test_test_files_do_not_import_one_another() -> None:
    wrong = set()
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for module, _ in imports(ast.parse(path.read_text("utf-8"))):
            if module.startswith("tests.") and ".test_" in module:
                wrong.add((path.stem, module))
    assert wrong - EXCEPTIONS == set()


@pytest.mark.parametrize(
    ("module", "code", "check"),
    [
        ("audio.new", "def f():\n    from asr.model import tokens", broken_levels),
        ("audio.new", "from asr.text.numerals import numerals", broken_levels),
        (
            "training.new",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import asr.inference.files",
            broken_levels,
        ),
        ("errors", "from asr import audio", broken_levels),
        ("text.numerals", "import asr.text.numerals2", cycles),
        ("cli.new", "from asr.audio.reading import _open", private_crossings),
        ("cli.new", "from asr.audio import reading\nreading._open", private_crossings),
        ("inference.new", "from rich.table import Table", misplaced),
        ("server.new", "def f():\n    print(1)", misplaced),
        ("evaluation.new", "from torch.utils.tensorboard import SummaryWriter", misplaced),
        ("text.new", "import torch.nn.functional as F", misplaced),
    ],
)
def test_a_broken_rule_is_found(found: dict[str, ast.Module], module: str, code: str, check) -> None:  # type: ignore[no-untyped-def]
    before = check(found)
    added = {"text.numerals2": ast.parse("from asr.text import numerals"), module: ast.parse(code)}
    assert any(module in (name if isinstance(name, tuple) else (name,)) for name in check(found | added) - before)
