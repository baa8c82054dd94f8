"""Tables and cards on a terminal of 80 columns: nothing is cut."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from report.device import device_board
from report.pareto import front_board
from report.tables import leaderboard
from search.cli.tables import print_device, print_front, print_leaderboard
from search.study.config import STUDIES
from search.study.records import records
from search.study.run import Opened
from tests.support.synthetic import fill, noise_images, storages_in_memory, synthetic_run

CUT = "\N{HORIZONTAL ELLIPSIS}"  # by which rich ends what has no room


@pytest.mark.parametrize("what", ["leaderboard", "front", "cards"])
def test_nothing_is_cut_at_80_columns(tmp_path: Path, what: str) -> None:
    """A study ranked by int8 has the widest leaderboard; names of costs are the longest titles."""
    console: Any = Console(file=io.StringIO(), width=80)
    with storages_in_memory():
        run = synthetic_run(tmp_path, STUDIES / "tinyml" / "study.toml", search__rungs=None, recipe__epochs=2)
        made = fill(run, noise_images(), 4)
        study = Opened(run, records(made.candidates), records(made.references))
        if what == "leaderboard":
            print_leaderboard(console, leaderboard(*study, 100), run.config)
        elif what == "front":
            print_front(console, front_board(study, ("flash_bytes", "arena_bytes"), made))
        else:
            print_device(console, device_board(study, "64KB/64KB", made))
    lines = console.file.getvalue().splitlines()
    assert CUT not in "".join(lines)
    assert all(len(line) <= 80 for line in lines if what == "cards" or not line[:1].isalnum()), (
        "sentences wrap by themselves"
    )
    if what == "cards":  # what goes on is indented
        assert all(line.startswith(("trial ", "  ")) for line in lines if line)
