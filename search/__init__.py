"""Architecture search for image classifiers under a strict parameter budget; `python -m search VERB ...`.

From Python: `from search import Study`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.api.study import Study

__all__ = ["Study"]


def __getattr__(name: str) -> Any:
    """Load the command line with `Study` only."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from search.api.study import Study

    return Study
