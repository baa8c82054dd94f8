"""Plotly figures, computed from plain rows. Plotly is imported with the first figure, not with the rows."""

from importlib import import_module
from typing import Any

__all__ = ["accuracy_by_cost", "learning_curves"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("report.figures.curves"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
