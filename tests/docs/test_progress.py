"""`make test` shows how far it is in whole lines, also where its output is no terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = """
import pytest
from tests.support.progress import show_progress

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    show_progress(config)
"""
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(300))
def test_number(number):
    assert number != 7
"""


def run(folder: Path, tests: str, *options: str) -> str:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_many.py").write_text(tests)
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={folder}",
        "-c",
        "none.ini",
        *options,
    ]
    (folder / "none.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    return subprocess.run([*words, "test_many.py"], cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("options", [(), pytest.param(("-n", "2"), marks=pytest.mark.long)], ids=["alone", "workers"])
def test_percent_number_and_time_stand_on_lines_and_a_failure_is_named_at_once(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    lines = run(tmp_path, TESTS, *options).splitlines()
    shown = [line for line in lines if " of 300 tests, 0 min " in line]
    assert 20 <= len(shown) <= 22
    assert shown[-1].startswith("[100%] 300 of 300 tests")
    failed = next(line for line in lines if line.startswith("FAILED"))
    assert failed == "FAILED test_many.py::test_number[7] (call)"
    assert lines.index(failed) < lines.index(shown[-1])


def test_a_few_tests_are_shown_as_ever(tmp_path: Path) -> None:
    assert run(tmp_path, TESTS.replace("300", "3")).startswith("...")
