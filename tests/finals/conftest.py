"""Fixtures of the finals with simulated trainings."""

from __future__ import annotations

from tests.support.finals import base, finals_bench, finals_bench_of, searched, trainer
from tests.support.runs import pretence

__all__ = ["base", "finals_bench", "finals_bench_of", "pretence", "searched", "trainer"]
