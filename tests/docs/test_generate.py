"""The generated parts of docs/ are up to date: docs/commands.md and the tables of keys of a study file."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import COMMANDS, DOCS, commands_page, generated, with_keys
from search.cli.commands import app
from search.study.reference import keys

PAGES = generated()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_up_to_date(path: Path) -> None:
    """If this fails: python -m docs.generate"""
    assert path.read_text(encoding="utf-8") == PAGES[path]


def test_every_verb_and_option_has_a_help_text() -> None:
    page = commands_page()
    assert page.count("\n## ") == len([command for command in app.registered_commands if not command.hidden])
    assert [line for line in page.splitlines() if line.startswith("| `") and line.rstrip(" |").endswith("`")] == []


def test_every_key_of_a_study_file_has_one_row() -> None:
    rows = [line for name in ("study-file.md", "recipe.md") for line in PAGES[DOCS / name].splitlines()]
    for key in keys():
        if key.name != "kind":
            assert len([row for row in rows if f"| `{key.name}` |" in row and key.description in row]) >= 1, key


def test_a_table_that_is_none_is_an_error() -> None:
    with pytest.raises(KeyError):
        with_keys("<!-- keys: serach -->\n<!-- end of keys -->\n")


def test_the_generated_page_is_not_edited_by_hand() -> None:
    assert "generated from the command line" in COMMANDS.read_text(encoding="utf-8")
