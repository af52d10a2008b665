"""Recipes: every key is known and of its kind, and what the command line changes."""

from pathlib import Path

import pytest

from asr.errors import RecipeError
from asr.training.recipe import Recipe, read

SHORT = 'name = "a"\n[data]\ntrain = ["x"]\ndev = ["y", "z"]\n'


def recipe(tmp_path: Path, text: str = SHORT, *changes: str) -> Recipe:
    (tmp_path / "r.toml").write_text(text, "utf-8")
    return read(tmp_path / "r.toml", changes)


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    read_back = recipe(tmp_path, SHORT + "batch_seconds = 30\n[model]\ncell = 'gru'\n[frontend]\nkind = 'pcen'\n")
    assert read_back.data.train == ("x",) and read_back.data.dev == ("y", "z")
    assert isinstance(read_back.data.batch_seconds, float) and read_back.data.batch_seconds == 30
    assert (read_back.model.cell, read_back.model.layers, read_back.frontend.kind) == ("gru", 4, "pcen")
    assert read_back.train.updates == 10_000


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "recipes").rglob("*.toml")), ROOT / "tests" / "overfit.toml"], ids=lambda path: path.stem
)
def test_the_recipes_of_this_repository(path: Path) -> None:
    assert read(path).name == (path.parent.name if path.stem == "acoustic" else path.stem)


def test_changes(tmp_path: Path) -> None:
    changed = recipe(
        tmp_path,
        SHORT,
        "train.updates=500",
        "train.learning_rate=1e-3",
        'data.train=["a", "b"]',
        "data.noise=data/noise",
        "model.cell=gru",
        "name=b",
        "train.clip=2",
        'licence="CC BY 4.0"',
        "data.rooms=",
    )
    assert (changed.train.updates, changed.train.learning_rate, changed.train.clip) == (500, 1e-3, 2.0)
    assert changed.data.train == ("a", "b") and changed.data.noise == "data/noise" and changed.data.rooms == ""
    assert (changed.model.cell, changed.name, changed.licence) == ("gru", "b", "CC BY 4.0")


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        (SHORT + "batchseconds = 3\n", (), "unknown key 'data.batchseconds': known here are train, dev, noise"),
        (SHORT + "[trian]\nupdates = 3\n", (), "unknown key 'trian'"),
        (SHORT, ("train.update=3",), "unknown key 'train.update'"),
        (SHORT + "[train]\nupdates = 3.5\n", (), "'train.updates' is 3.5, which is not a whole number"),
        (SHORT + "[train]\nupdates = true\n", (), "'train.updates' is True, which is not a whole number"),
        (SHORT + "[train]\nclip = true\n", (), "'train.clip' is True, which is not a number"),
        (SHORT + "[train]\nupdates = 0\n", (), "'train': updates must be 1 or more"),
        (SHORT + "[train]\naccumulate = 0\n", (), "'train': accumulate must be 1 or more"),
        (SHORT + "workers = -1\n", (), "'data': workers must be 0 or more"),
        (SHORT + "batch_seconds = 0\n", (), "'data': batch_seconds must be 0.001 or more"),
        (SHORT + "[augment]\nspeed = -1.0\n", (), "'augment': speed must be from 0 to 1"),
        (SHORT + "[augment]\nmost_snr = 3.0\n", (), "'augment': most_snr must be 5 or more"),
        (SHORT + "[train]\naveraging = 7.0\n", (), "'train': averaging must be from 0 to 1"),
        (SHORT + "[train]\ncrf_order = 4\n", (), "'train': crf_order must be from 2 to 3"),
        (SHORT + "[model]\nlayers = 1000\n", (), "'model': layers must be from 1 to 64"),
        (SHORT, ("data.train=a",), "'data.train' is 'a', which is not a list, each item a text"),
        (SHORT, ("data.train=[1]",), "'data.train' is 1, which is not a text"),
        (SHORT, ("data=3",), "'data' must hold keys and values, not 3"),
        (SHORT, ("name.first=b",), "'name.first': name is a value, not a section"),
        (SHORT, ("resume",), "'resume' is not a change: write key=value"),
        ('name = "a"\n[data]\ntrain = ["x"]\n', (), "the key 'data.dev' is missing"),
        ('name = "a"\n', (), "the key 'data' is missing"),
        ("name = a", (), r"r\.toml cannot be read"),
    ],
)
def test_errors_name_the_key(tmp_path: Path, text: str, changes: tuple[str, ...], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(tmp_path, text, *changes)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone\.toml cannot be read"):
        read(tmp_path / "gone.toml")
