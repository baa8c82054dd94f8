"""docs/commands.md is what the command line says of itself."""

from __future__ import annotations

from docs.generate import COMMANDS, commands_page
from search.__main__ import app


def test_the_page_of_commands_is_up_to_date() -> None:
    """If this fails: python -m docs.generate"""
    assert COMMANDS.read_text(encoding="utf-8") == commands_page()


def test_every_verb_and_option_has_a_help_text() -> None:
    page = commands_page()
    verbs = [command for command in app.registered_commands if not command.hidden]
    assert page.count("\n## ") == len(verbs)
    assert "| |" not in page and "|  |" not in page
