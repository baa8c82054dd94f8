"""Every command and every example in README.md and docs/ runs, is run by a named test, or says why it is not.

The quick ones run here, in this process, on the small finished run of tests/support/runs.py in place of `quickstart`.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import plotly.graph_objects
import pytest

from search.study.run import Run
from search.study.study_file import load
from tests.docs.markdown import PAGES, PYTHONS, ROOT, SEARCH, Block, all_blocks, blocks
from tests.support.commands import search
from tests.support.keras_files import residual3, zipped
from tests.support.runs import finished, study_file

__all__ = ["finished"]

RUN_PAGES = [page for page in PAGES if any(block.is_run for block in blocks(page, "sh", "python"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def workplace(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A current folder with the files that the pages name; returns what stands for each word of a command."""
    folder = tmp_path / "copied"
    shutil.copytree(finished.folder.parent, folder)
    zipped(tmp_path / "my_model.keras", residual3())
    (tmp_path / "mine.toml").write_text(whole_study().text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return {"quickstart": str(folder / study_file(finished).name)}


def whole_study() -> Block:
    """The complete study of docs/study-file.md."""
    (whole,) = [block for block in blocks(ROOT / "docs" / "study-file.md", "toml") if "base" in tomllib.loads(block.text)]
    return whole


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_how_it_is_tested(page: Path) -> None:
    kinds = ("test: run", "tested by: ", "not tested: ")
    assert [str(block) for block in blocks(page, "sh", "python", "cpp") if not block.marker.startswith(kinds)] == []


@pytest.mark.parametrize("block", [block for block in all_blocks("sh", "python") if block.tested_by], ids=str)
def test_the_test_that_is_named_runs_these_verbs(block: Block) -> None:
    path = ROOT / str(block.tested_by)
    assert path.is_file(), f"{block}: no {block.tested_by}"
    text = path.read_text(encoding="utf-8")
    verbs = [words[words.index("search") + 1] for words in block.commands if words[0] in PYTHONS and "search" in words]
    assert [verb for verb in verbs if verb not in text] == [], f"{block}: {block.tested_by} does not mention them"


@pytest.mark.parametrize("page", RUN_PAGES, ids=name_of)
def test_the_quick_commands_of_a_page_run(page: Path, workplace: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(plotly.graph_objects.Figure, "show", lambda figure: shown.append(figure))
    for block in blocks(page, "sh", "python"):
        if not block.is_run:
            continue
        if block.language == "python":
            exec(compile(block.text.replace("quickstart", workplace["quickstart"]), str(block), "exec"), {})
            assert shown, f"{block}: no figure was shown"
            continue
        for words in block.commands:
            assert tuple(words[:3]) == SEARCH, f"{block}: only commands of this program are run here: {words}"
            ended = search(*(workplace.get(word, word) for word in words[3:]))
            assert ended.status == 0, f"{block}: {' '.join(words)}: {ended.err}"


@pytest.mark.parametrize("block", all_blocks("toml"), ids=str)
def test_every_part_of_a_study_file_is_one(block: Block, tmp_path: Path) -> None:
    """A block without a base is taken into the complete study of docs/study-file.md, table by table."""
    path, part = tmp_path / "study.toml", tomllib.loads(block.text)
    text = block.text
    if "base" not in part:
        assert all(isinstance(table, dict) for table in part.values()), f"{block}: keys outside a table"
        whole = whole_study().text
        for table in part:
            whole = _without_table(whole, table)
        text = whole + block.text
    path.write_text(text, encoding="utf-8")
    load(path)


def _without_table(text: str, table: str) -> str:
    kept, skips = [], False
    for line in text.splitlines():
        if line.startswith("["):
            skips = line.split("]")[0] == f"[{table}"
        if not skips:
            kept.append(line)
    return "\n".join(kept) + "\n"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200
