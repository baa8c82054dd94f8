"""Order of the test files: the longest first, since one that begins last keeps one process at work and the other idle."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LONGEST_FIRST = (
    "training/engine/test_tensorflow.py",
    "integration/test_faults.py",
    "integration/test_run.py",
    "runner/test_ray.py",
    "integration/test_vanished.py",
    "report/dashboard/test_server.py",
    "training/engine/test_jax.py",
    "report/html/test_page.py",
    "integration/test_finals.py",
    "study/test_new.py",
    "tuning/test_forecast.py",
    "integration/test_signals.py",
    "report/submission/test_folder.py",
    "budget/test_lowering.py",
    "runner/test_folds.py",
    "tuning/test_training_keys.py",
    "tuning/test_sampler.py",
    "integration/test_failing_trials.py",
    "training/engine/test_tensorflow_layers.py",
    "integration/test_command_line.py",
    "export/test_tflite.py",
    "tuning/test_stopping.py",
    "export/test_source.py",
    "training/test_train.py",
    "training/test_checkpoint.py",
    "finals/test_run.py",
    "training/test_device.py",
    "export/test_int8.py",
    "tuning/test_pruner.py",
    "tuning/test_scaling.py",
    "report/html/test_leaderboard.py",
    "training/test_model.py",
    "runner/test_supervisor.py",
    "training/test_train_steps.py",
    "training/engine/test_gpu_kernels.py",
    "tuning/test_sampler_limits.py",
    "simulation/test_queue_simulation.py",
    "export/test_training_source.py",
    "export/test_exporter.py",
    "integration/test_directions.py",
    "integration/test_random_kills.py",
)
_RANKS = {TESTS / name: rank for rank, name in enumerate(LONGEST_FIRST)}


def sort_by_file(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first and leave the others in their order."""
    items.sort(key=lambda item: _RANKS.get(item.path, len(_RANKS)))
