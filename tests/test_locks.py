"""What is pinned: constraints.txt has every version, requirements.txt those of the server with hashes."""

import re
import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def pins(name: str) -> set[tuple[str, str]]:
    """Names and versions."""
    return set(PIN.findall((ROOT / name).read_text("utf-8")))


def direct(*extras: str) -> list[Requirement]:
    listed = [*PROJECT["dependencies"], *(each for extra in extras for each in EXTRAS[extra])]
    return [each for each in map(Requirement, listed) if each.name != PROJECT["name"]]


def test_all_that_the_server_needs_has_hashes() -> None:
    entries = (ROOT / "requirements.txt").read_text("utf-8").split("\n# ")[-1]
    blocks = re.split(r"\n(?=\S)", entries[entries.index("\n", entries.index("scripts/lock")) + 1 :].strip())
    assert all(PIN.match(block) and "--hash=sha256:" in block for block in blocks) and len(blocks) > 50
    named = {name for name, _ in pins("requirements.txt")}
    assert {each.name for each in direct("serve")} <= named


def test_both_files_have_the_same_versions() -> None:
    assert pins("requirements.txt") <= pins("constraints.txt")


def test_pinned_versions_are_those_that_the_package_allows() -> None:
    for each in direct("serve", "train", "wyoming", "ray"):
        found = [version for name, version in pins("constraints.txt") if name == each.name]
        assert found and all(version in each.specifier for version in found), each


def test_majors_that_broke_before_are_bounded() -> None:
    """A new major version is not installed before it has been tested."""
    for each in direct("serve", "train", "wyoming", "ray"):
        assert any(bound.operator in ("<", "<=", "==", "~=") for bound in each.specifier), each


def test_every_direct_dependency_has_its_license_on_the_page() -> None:
    page = (ROOT / "docs" / "licenses.md").read_text("utf-8")
    rows = " ".join(re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)).replace(",", "").split()
    extras = [name for name in EXTRAS if name not in ("dev", "docs", "bench")]
    assert {each.name for each in direct(*extras)} - set(rows) == set()
