"""Orders that a supervisor gives to a worker, one JSON line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.study import study_file
from search.study.run import Run


@dataclass(frozen=True)
class FinalsOrder:
    """Train the best few and the base again: how many of them, on how many fresh seeds."""

    top: int = 5
    seeds: int = 5
    control: bool = False  # also run a random search of equal cost
    again: bool = False  # read the test images even if they have been read before


@dataclass(frozen=True)
class Order:
    """The work of one worker: a search, some references, or finals."""

    name: str
    folder: str
    storage_url: str
    config: Mapping[str, Any]
    references: tuple[str, ...] = ()  # trained instead of candidates
    finals: FinalsOrder | None = None  # instead of the search
    seconds_left: float | None = None  # of the run, where its [stop] has a limit
    worker: str = "worker"  # name under which it begins trials
    is_first: bool = True  # of the workers of its supervisor, the one that does what is done once

    @property
    def run(self) -> Run:
        """The run, with its configuration parsed."""
        return Run(self.name, Path(self.folder), study_file.parse(self.config, "configuration"), self.storage_url)


def make_order(run: Run, references: tuple[str, ...] = (), finals: FinalsOrder | None = None) -> Order:
    """The order to train a run's candidates, or these references, or its finals."""
    return Order(run.name, str(run.folder), run.storage_url, run.config.dump(), references, finals)


def encode_order(order: Order) -> bytes:
    """The order as a line of JSON."""
    return (json.dumps(asdict(order)) + "\n").encode()


def decode_order(line: str) -> Order:
    """The order of a line that `encode_order` wrote.

    Raises:
        UserError: the line is no order, as where a user starts a worker.
    """
    try:
        record = json.loads(line)
        finals = FinalsOrder(**record["finals"]) if record["finals"] else None
        return Order(**record | {"references": tuple(record["references"]), "finals": finals})
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(
            f"worker: {line[:60]!r} on standard input is no order; workers are started by: python -m search run STUDY"
        ) from None
