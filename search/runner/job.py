"""What a supervisor tells a worker to do: one JSON line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.study import study_file
from search.study.run import Run


class StudyStopped(Exception):
    """The study cannot go on: the message says why and what would help."""


@dataclass(frozen=True)
class Finals:
    """Train the best few and the base again: how many of them, on how many fresh seeds."""

    top: int = 5
    seeds: int = 5
    control: bool = False  # a random search of equal cost beside them
    again: bool = False  # read the test images although they have been read


@dataclass(frozen=True)
class Order:
    """What a worker is to do."""

    name: str
    folder: str
    storage_url: str
    config: Mapping[str, Any]
    references: tuple[str, ...] = ()  # trained beside the base; candidates are then left alone
    finals: Finals | None = None  # instead of the search
    seconds_left: float | None = None  # of the run, where its [stop] has a limit
    worker: str = "worker"  # the name under which it begins trials
    is_first: bool = True  # of those of its supervisor: that which does what is done once

    @property
    def run(self) -> Run:
        return Run(self.name, Path(self.folder), study_file.parse(self.config, "configuration"), self.storage_url)


def order_of(run: Run, wanted: tuple[str, ...] = (), finals: Finals | None = None) -> Order:
    """The order to train a run's candidates, or these references, or its finals."""
    return Order(run.name, str(run.folder), run.storage_url, run.config.dump(), wanted, finals)


def encode_order(order: Order) -> bytes:
    """The order as the line that a worker reads."""
    return (json.dumps(asdict(order)) + "\n").encode()


def decode_order(line: str) -> Order:
    """The order that `encode_order` wrote.

    Raises:
        UserError: it is none, as where a person starts a worker.
    """
    try:
        told = json.loads(line)
        finals = Finals(**told["finals"]) if told["finals"] else None
        return Order(**told | {"references": tuple(told["references"]), "finals": finals})
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(
            f"worker: {line[:60]!r} on standard input is no order; workers are started by: python -m search run STUDY"
        ) from None
