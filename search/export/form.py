"""A form in which a network is taken away: how it is written, and how it is read back and compared.

The forms themselves are records in `search.export.keras_formats` and `search.export.portable_formats`;
`search.export.exporter` lists them all.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.export.card import Files
from search.export.format import Subject

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """One form; its files are named after the export, each with its ending."""

    name: str
    endings: tuple[str, ...]
    doing: str  # in words for people, while it is done
    write: Callable[[Subject, Sequence[Path], Files], None]  # to these paths, beside files that are already written
    verify: Callable[[Subject, Sequence[Path]], Facts]  # facts for the card; ValueError where it is another network
    trained: bool = True  # whether it needs weights
    brings: tuple[str, ...] = ()  # forms that come with it
    missing: Callable[[Subject], str | None] = lambda subject: None  # why it cannot be written of this network, or here

    def names(self, stem: str) -> list[str]:
        """The names of its files."""
        return [stem + ending for ending in self.endings]


def no_tensorflow() -> str | None:
    """Why a converter that reads TensorFlow's graphs cannot be used in this process."""
    from search.training.device import backend

    found = backend()
    return None if found == "tensorflow" else f"needs Keras on TensorFlow, not {found}; set KERAS_BACKEND=tensorflow"


def not_installed(*modules: str) -> str | None:
    """Which of the modules are not installed, and how they are."""
    absent = [module.replace("_", "-") for module in modules if importlib.util.find_spec(module) is None]
    return f"{', '.join(absent)} not installed; install with: pip install {' '.join(absent)}" if absent else None
