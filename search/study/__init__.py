"""A study: its file, its run folder, its records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.study.run import Opened, open_study

__all__ = ["Opened", "open_study"]


def __getattr__(name: str) -> Any:
    """Load Optuna with `open_study` only: commands that read study files alone start without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from search.study import run

    return getattr(run, name)
