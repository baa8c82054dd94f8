"""The command `export`: its exit status, and the progress line on a terminal."""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path

import pytest

from search.cli import waiting
from search.cli.export import show_format
from search.cli.waiting import WaitingLine
from search.export.exporter import FORMATS
from search.export.keras_source import keras_source
from tests.support import commands

SECONDS = 20.0  # that a line may take on a machine that has other work


def test_a_format_that_fails_is_named_and_the_others_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_source(*arguments: object, **options: object) -> str:
        return keras_source(*arguments, **options).replace("def ", "def def ")  # type: ignore[arg-type]

    monkeypatch.setattr("search.export.formats.keras_source", broken_source)
    ended = commands.search("export", "eip-b", "--to", tmp_path)
    assert ended.status == 1
    assert ended.err.startswith("py: ") and ended.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eip-b.json", "eip-b_add.py"]
    assert "eip-b_add.py" in ended.out


def test_a_long_export_names_its_format_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.01)
    try:
        with os.fdopen(slave, "w", encoding="utf-8") as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            with WaitingLine() as progress:
                show_format(progress, FORMATS["int8"], "trial-3, ")
                assert "trial-3, int8: TensorFlow Lite, int8" in read_until(master, "int8, calibrated")
    finally:
        os.close(master)


def read_until(descriptor: int, text: str) -> str:
    """The output of a terminal until it contains a text."""
    output, deadline = "", time.monotonic() + SECONDS
    while text not in output:
        assert time.monotonic() < deadline, output
        if select.select([descriptor], [], [], 0.1)[0]:
            output += os.read(descriptor, 4096).decode()
    return output


def test_no_progress_is_written_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.0)
    with (tmp_path / "err").open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stderr", file)
        with WaitingLine() as progress:
            show_format(progress, FORMATS["int8"])
            time.sleep(0.05)
    assert (tmp_path / "err").read_text() == ""
