"""The fenced blocks of README.md and docs/*.md, each with the comment that says how it is tested."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SEARCH = (".venv/bin/python", "-m", "search")  # begins a command that the tests can run in this process
PYTHONS = (".venv/bin/python", ".venv-gpu/bin/python", "python")

_BLOCK = re.compile(
    r"(?:^<!-- (?P<marker>[^\n]*) -->\n)?^```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced block: `marker` is the text of the comment on the line before it, empty where there is none."""

    page: Path
    line: int
    language: str
    marker: str
    text: str

    @property
    def is_run(self) -> bool:
        """True if tests/docs/test_blocks.py runs it."""
        return self.marker == "test: run"

    @property
    def tested_by(self) -> str | None:
        """The test file that runs the same commands, relative to the root; None where there is none."""
        return self.marker.removeprefix("tested by: ") if self.marker.startswith("tested by: ") else None

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command line, without comments."""
        lines = [shlex.split(line, comments=True) for line in self.text.splitlines()]
        return [words for words in lines if words]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in these languages, from top to bottom."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        if match["language"] in languages:
            line = text.count("\n", 0, match.start("language")) + 1
            found.append(Block(page, line, match["language"], match["marker"] or "", match["text"]))
    return found


def all_blocks(*languages: str) -> list[Block]:
    """The blocks of all pages in these languages."""
    return [block for page in PAGES for block in blocks(page, *languages)]
