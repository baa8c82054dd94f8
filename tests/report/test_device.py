"""report.device: cards of candidates on a microcontroller."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from report.analysis.findings import gather
from report.device import card_lines, device_board, device_table
from report.html import results
from search.budget.cost import compute_cost
from search.cli.tables import print_device
from search.study.config import STUDIES
from search.study.records import records
from search.study.run import Opened, network_of
from search.text import format_share
from tests.support.synthetic import fill, noise_images, storages_in_memory, synthetic_run

FLOAT = {"search__rungs": None, "search__rank_by": "float", "recipe__epochs": 2}


def test_a_card_has_what_a_board_needs_to_know(tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(
            tmp_path, STUDIES / "tinyml" / "study.toml", search__rungs=None, search__rank_by="float", recipe__epochs=2
        )
        made = fill(run, noise_images(), 6)
        study = Opened(run, records(made.candidates), records(made.references))
        board = device_board(study, "64KB/32KB", made, most=3)
        section = results.device(gather(run, made))
        costs = [compute_cost(network_of(run, card["number"], made)) for card in board["cards"]]
    assert (board["ram"], board["flash"], board["macs"]) == (65_536, 32_768, 8_000_000)
    assert [card["rank"] for card in board["cards"]] == [1, 2, 3]
    for card, cost in zip(board["cards"], costs, strict=True):
        assert (card["arena_bytes"], card["flash_bytes"], card["macs"]) == (cost.arena_bytes, cost.flash_bytes, cost.macs)
        assert card["fits"] == (cost.arena_bytes <= 65_536 and cost.flash_bytes <= 32_768)
        assert {"AddConv2D", "AddDepthwiseConv2D", "AddSoftmax"} <= set(card["operators"])
        assert card["int8_val_accuracy"] is None
    first = "\n".join(card_lines(board, board["cards"][0], ascii_only=True))
    assert f"{costs[0].arena_bytes:,} of 65,536 bytes of arena" in first and "int8    accuracy not measured" in first
    assert device_table(board).columns[1:3] == ("arena of 65,536", "flash of 32,768")
    console = Console(file=io.StringIO(), width=80)
    print_device(console, board)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("(rank ") == 3 and max(map(len, shown.splitlines())) <= 80
    assert section and section.title == "On 64KB/64KB"
    for card in board["cards"]:
        for name in ("arena_bytes", "flash_bytes"):
            assert f"{card[name]:,} ({format_share(card[name], 65_536)})" in section.body
