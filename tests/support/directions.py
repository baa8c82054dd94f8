"""Shared by the tests of directions and directions_limits."""

from __future__ import annotations

from typing import Any

RAW: dict[str, Any] = {"base": 0.5, "data": {"name": "digits"}, "budget": {"params": 1200}}
