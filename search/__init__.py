"""Architecture search for image classifiers under a strict parameter budget; `python -m search VERB ...`.

From Python: `from search import Study`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # for type checkers; `typing` would take most of the time before `__main__` can handle a Ctrl-C
if TYPE_CHECKING:
    from search.api.study import Study

__all__ = ["Study"]


def __getattr__(name: str) -> object:
    """Load the command line with `Study` only."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from search.api.study import Study

    return Study
