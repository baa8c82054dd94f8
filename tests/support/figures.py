"""Shared by the tests of curves and refusals."""

from __future__ import annotations

import json
from typing import Any

from plotly.graph_objects import Figure


def plain(figure: Figure | None) -> dict[str, Any]:
    """The figure as a browser receives it."""
    assert figure is not None
    found: dict[str, Any] = json.loads(figure.to_json())
    return found


def trace(figure: Figure | None, name: str) -> dict[str, Any]:
    """The one trace whose name begins so."""
    (found,) = [one for one in plain(figure)["data"] if one["name"].startswith(name)]
    return dict(found)
