"""What a supervisor tells a worker to do: one JSON line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search import config as configs
from search.study import Run


class StudyStopped(Exception):
    """The study cannot go on: the message says why and what would help."""


@dataclass(frozen=True)
class Order:
    """What a worker is to do."""

    name: str
    folder: str
    storage_url: str
    config: Mapping[str, Any]
    references: tuple[str, ...] = ()  # trained beside the base; candidates are then left alone

    @property
    def run(self) -> Run:
        return Run(self.name, Path(self.folder), configs.parse(self.config, "configuration"), self.storage_url)


def order_of(run: Run, wanted: tuple[str, ...] = ()) -> Order:
    """The order to train a run's candidates, or these references."""
    return Order(run.name, str(run.folder), run.storage_url, run.config.dump(), wanted)


def encode_order(order: Order) -> bytes:
    """The order as the line that a worker reads."""
    return (json.dumps(asdict(order)) + "\n").encode()
