"""Order of the test files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.order import LONGEST_FIRST, TESTS, sort_by_file


def test_the_longest_files_exist() -> None:
    assert [name for name in LONGEST_FIRST if not (TESTS / name).is_file()] == []
    assert len(set(LONGEST_FIRST)) == len(LONGEST_FIRST)


def test_tests_of_the_longest_files_come_first_and_others_keep_their_order() -> None:
    def item(name: str, test: int) -> Any:
        return SimpleNamespace(path=Path(TESTS / name), test=test)

    second, first = LONGEST_FIRST[1], LONGEST_FIRST[0]
    items = [item("b.py", 0), item(second, 1), item("a.py", 2), item(first, 3), item(first, 4)]
    sort_by_file(items)
    assert [one.test for one in items] == [3, 4, 1, 0, 2]
