"""Candidates on a microcontroller: what each takes of its memory, as plain rows and as cards of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from report.tables import Table, leaderboard, measure_of
from search.budget.cost import compute_cost
from search.budget.devices import memory_of
from search.budget.lowering import registration, without_kernel
from search.study.dataset import images_of
from search.study.run import DATA, Opened, Studies, network_of
from search.text import format_percent, format_share

CARDS = 5  # candidates shown
BAR_WIDTH = 20  # letters

Card = Mapping[str, Any]


def device_board(
    study: Opened, device: str, studies: Studies, most: int | None = CARDS, numbers: Sequence[int] | None = None
) -> dict[str, Any]:
    """The best candidates with what their int8 forms take of a device, computed without converting them.

    Args:
        device: a chip or a profile, see `search.budget.devices`.
        most: number of candidates, the best first; None for all.
        numbers: only these trials, in this order.

    Raises:
        ValueError: the device is neither.
    """
    ram, flash = memory_of(device)
    images = images_of(studies.candidates.user_attrs[DATA], "validation")
    board = leaderboard(*study, images)
    is_int8 = board.get("ranked_by") == "int8"
    ranked = [row for row in board["trials"] if row["rank"] is not None]
    cards = []
    if numbers is not None:
        by_number = {row["number"]: row for row in ranked}
        ranked = [by_number[number] for number in numbers]
    for row in ranked[:most]:
        cost = compute_cost(network_of(study.run, row["number"], studies))
        cards.append(
            {
                "rank": row["rank"],
                "number": row["number"],
                "params": cost.params,
                "macs": cost.macs,
                "arena_bytes": cost.arena_bytes,
                "flash_bytes": cost.flash_bytes,
                "fits": cost.arena_bytes <= ram and cost.flash_bytes <= flash,
                "val_accuracy": row["float_val_accuracy"] if is_int8 else row["best_val_accuracy"],
                "int8_val_accuracy": row["best_val_accuracy"] if is_int8 else None,
                "operators": sorted({registration(operator.code) for operator in cost.lowered.operators}),
                "without_kernel": without_kernel(cost.lowered),
            }
        )
    limit = study.run.config.budget.limits.get("macs")
    known = {"device": device, "ram": ram, "flash": flash, "macs": limit, "val_images": images, "cards": cards}
    return known | ({"metric": board["metric"]} if "metric" in board else {})


def device_table(board: Mapping[str, Any]) -> Table:
    """The cards as a table: shares of RAM and flash, int8 accuracy, operators."""
    rows = []
    for card in board["cards"]:
        shares = (
            f"{card[name]:,} ({format_share(card[name], board[memory])})"
            for name, memory in (("arena_bytes", "ram"), ("flash_bytes", "flash"))
        )
        name = str(card["number"]) + ("" if card["fits"] else " (does not fit)")
        rows.append((name, *shares, f"{card['macs']:,}", accuracy_text(board, card), operators_text(card)))
    columns = ("trial", f"arena of {board['ram']:,}", f"flash of {board['flash']:,}", "multiply-adds", "int8", "operators")
    return Table(columns, rows)


def operators_text(card: Card) -> str:
    """The operators to register, with those that the runtime lacks."""
    lacking = f"; no int8 kernel: {', '.join(card['without_kernel'])}" if card["without_kernel"] else ""
    return ", ".join(card["operators"]) + lacking


def accuracy_text(board: Mapping[str, Any], card: Card) -> str:
    """Accuracy of a card's network after int8 conversion, where the study has measured it."""
    measured = card["int8_val_accuracy"]
    if measured is not None:
        return format_percent(measured, board["val_images"])
    return f"not measured; {format_percent(card['val_accuracy'], board['val_images'])} in float"


def bars(board: Mapping[str, Any], card: Card) -> Iterator[tuple[str, int, int, str]]:
    """(what, value, limit, unit) of each bar of a card; multiply-adds against the budget's or the largest shown."""
    macs = board["macs"] or max(other["macs"] for other in board["cards"])
    yield "RAM", card["arena_bytes"], board["ram"], "bytes of arena"
    yield "flash", card["flash_bytes"], board["flash"], "bytes of flash"
    yield "compute", card["macs"], macs, "multiply-adds"


def card_lines(board: Mapping[str, Any], card: Card, *, ascii_only: bool = False) -> list[str]:
    """A card as lines of text."""
    full, empty = ("#", "-") if ascii_only else ("█", "░")
    fits = "fits" if card["fits"] else "does not fit"
    lines = [f"trial {card['number']} (rank {card['rank']}): {card['params']:,} parameters, {fits} {board['device']}"]
    for what, value, limit, unit in bars(board, card):
        filled = min(round(BAR_WIDTH * value / limit), BAR_WIDTH) if limit else 0
        bar = full * filled + empty * (BAR_WIDTH - filled)
        share = format_share(value, limit)
        lines.append(f"  {what:<8}{bar} {share:>6}  {value:>11,} of {limit:,} {unit}")
    lines.append(f"  int8    {measure_of(board).label} {accuracy_text(board, card)}")
    lines.append(f"  code    arena of {card['arena_bytes']:,} bytes; {', '.join(card['operators'])}")
    lacking: Sequence[str] = card["without_kernel"]
    if lacking:
        lines.append(f"  {', '.join(lacking)}: no int8 kernel in TensorFlow Lite Micro")
    return lines
