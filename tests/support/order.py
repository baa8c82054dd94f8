"""Order of the test files: the longest first, since one that begins last keeps one process at work and the other idle."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LONGEST_FIRST = (
    "integration/test_run.py",
    "integration/test_finals.py",
    "integration/test_random_kills.py",
    "integration/test_faults.py",
    "integration/test_crashes.py",
    "export/test_int8.py",
    "report/submission/test_folder.py",
    "export/test_formats.py",
    "integration/test_signals.py",
    "report/dashboard/test_server.py",
    "training/engine/test_tensorflow.py",
    "training/engine/test_jax.py",
    "training/test_train.py",
    "training/test_device.py",
    "integration/test_pareto.py",
    "integration/test_directions.py",
    "integration/test_command_line.py",
    "report/html/test_page.py",
    "report/markdown/test_report.py",
    "export/test_tflite.py",
    "export/test_exporter.py",
    "runner/test_ray.py",
    "tuning/test_forecast.py",
    "training/test_checkpoint.py",
    "study/test_new.py",
    "tuning/test_stopping.py",
    "tuning/test_pruner.py",
    "integration/test_earlier_runs.py",
    "docs/test_makefile.py",
)
_RANKS = {TESTS / name: rank for rank, name in enumerate(LONGEST_FIRST)}


def sort_by_file(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first and leave the others in their order."""
    items.sort(key=lambda item: _RANKS.get(item.path, len(_RANKS)))
