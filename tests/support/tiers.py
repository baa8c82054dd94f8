"""Parameters of tests by tier (docs/development.md)."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest


def tiered(values: Iterable[Any], *, quick: Container[Any]) -> list[Any]:
    """The values, with the marker `long` on those that are not in `quick`."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.long) for value in values]
