"""Study files of any content, through `plan` and the reader: a study, or one line that says what is wrong.

python -m pytest tests/fuzz/test_studies.py --hypothesis-profile=long
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import search.study.survey
from search.budget.limits import Budget
from search.errors import UserError
from search.spaces.pyramid import Pyramid
from search.spaces.recipe import RecipeSpace
from search.spaces.residual import ResidualStages
from search.study.config import STUDIES, StudyConfig
from search.study.study_file import load, parse
from search.study.tables import DataConfig, SearchConfig, StopConfig
from tests.support.hostile import search as run
from tests.support.odd import damaged, mutated, to_toml
from tests.support.strategies import residual_tables, space_tables

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MANY = settings.default.max_examples // 3  # of the profile
RECORDS = (StudyConfig, DataConfig, Budget, SearchConfig, StopConfig, RecipeSpace, Pyramid, ResidualStages)
NAMES = sorted({name for record in RECORDS for name in record.model_fields})


def _originals() -> list[dict[str, Any]]:
    """The shipped studies, and those of README.md and docs/, also the first of these with each documented part in it."""
    shipped = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(STUDIES.glob("*/study.toml"))]
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = [tomllib.loads(block) for block in re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
    whole = [block for block in blocks if "base" in block]
    return [*shipped, *whole, *(whole[0] | part for part in blocks if "base" not in part)]


ORIGINALS = _originals()
SMALLEST = 'base = 0.5\ndata = { name = "digits" }\nbudget = { params = 9_000 }\nspace = {}\n'
TEXTS = [to_toml(one) for one in ORIGINALS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to fuzz in, with surveys of few draws."""
    home = tmp_path_factory.mktemp("studies")
    for path in (STUDIES / "quickstart" / "base.json", next(STUDIES.glob("*/gated-97k.json"))):
        (home / path.name).write_bytes(path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search.study.survey, "DRAWS", 20)
        patch.setattr(search.study.survey, "survey_space", partial(search.study.survey.survey_space, draws=20))
        yield home


def planned(folder: Path, content: bytes | str) -> None:
    """Plan the study file of this content, and read it back from what it dumps."""
    file = folder / "study.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    ended = run("plan", "study.toml", *(["--json"] if len(content) % 2 else []), within=folder)
    try:
        config = load(file)
    except UserError:
        assert ended.status == 2
        return
    assert parse(json.loads(json.dumps(config.dump(), allow_nan=False)), "dump").digest == config.digest


def test_the_originals_are_studies(folder: Path) -> None:
    for text in TEXTS:
        (folder / "study.toml").write_text(text, encoding="utf-8")
        load(folder / "study.toml")
        ended = run("plan", "study.toml", within=folder)
        is_absent = any(
            words in ended.err for words in ("no such file", "holds no run")
        )  # images and runs of the reader's own
        assert ended.status == 0 or is_absent, ended


@settings(max_examples=MANY)
@given(study=mutated(ORIGINALS, keys=NAMES))
def test_a_study_with_odd_values_is_planned_or_rejected_in_one_line(study: dict[str, Any], folder: Path) -> None:
    planned(folder, to_toml(study))


@settings(max_examples=MANY // 2)
@given(data=st.data())
def test_odd_values_in_a_random_space_likewise(data: st.DataObject, folder: Path) -> None:
    space = data.draw(space_tables() | residual_tables())
    study = {"base": 0.5, "data": {"name": "digits"}, "budget": {"params": 10**6}, "space": space}
    planned(folder, to_toml(data.draw(mutated([study], keys=NAMES))))


@settings(max_examples=MANY // 2)
@given(data=st.data())
def test_damaged_text_likewise(data: st.DataObject, folder: Path) -> None:
    planned(folder, data.draw(damaged(data.draw(st.sampled_from(TEXTS)).encode())))


@settings(max_examples=MANY // 4)
@given(content=st.binary(max_size=200) | st.text(max_size=200))
@example(content="a = " + "[" * 100_000)
@example(content="a = " + "{a = " * 100_000)
@example(content="[" + ".".join("a" * 5_000) + "]\nb = 1")
@example(content="base = 0.5\n[budget.params." + ".".join("a" * 5_000) + "]\nb = 1")
@example(content=SMALLEST.replace("0.5", '"a\\u0000b.json"'))
@example(content=SMALLEST + 'search = { warm_start = ["a\\u0000b.json"] }')
@example(content=SMALLEST.replace("name", "path").replace("digits", "a\\u0000b"))
@example(content=SMALLEST.replace("name", "path").replace("digits", "x" * 300))
@example(content=SMALLEST.replace("{}", '{ kind = "fixed", network = "' + "x" * 300 + '" }'))
def test_anything_at_all_likewise(content: bytes | str, folder: Path) -> None:
    planned(folder, content)
