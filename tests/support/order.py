"""Order of the test files, by the longer of their times in both tiers: one that begins last keeps the other process idle."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LONGEST_FIRST = (
    "runner/test_ray.py",
    "integration/test_faults.py",
    "training/engine/test_jax.py",
    "integration/test_finals.py",
    "integration/test_vanished.py",
    "training/engine/test_tensorflow.py",
    "integration/test_run.py",
    "integration/test_failing_trials.py",
    "study/test_new.py",
    "budget/test_lowering.py",
    "report/dashboard/test_server.py",
    "integration/test_signals.py",
    "integration/test_command_line.py",
    "tuning/test_stopping.py",
    "tuning/test_forecast.py",
    "export/test_source.py",
    "export/test_tflite.py",
    "training/engine/test_tensorflow_layers.py",
    "report/html/test_page.py",
    "export/test_int8.py",
    "training/test_train_steps.py",
    "finals/test_run.py",
    "tuning/test_training_keys.py",
    "runner/test_folds.py",
    "training/test_train.py",
    "training/test_model.py",
    "export/test_exporter.py",
    "runner/test_supervisor.py",
    "integration/test_random_kills.py",
    "tuning/bayes/test_sampler.py",
    "training/test_device.py",
    "tuning/test_sampler_limits.py",
    "storage/test_queue.py",
    "training/engine/test_gpu_kernels.py",
    "tuning/test_sampler.py",
    "export/test_training_source.py",
    "training/engine/test_xla.py",
    "training/test_checkpoint.py",
    "tuning/test_rungs.py",
    "integration/test_earlier_runs.py",
    "export/test_formats.py",
    "report/html/test_leaderboard.py",
    "runner/test_adoption_resume.py",
    "networks/test_geometry.py",
    "tuning/test_scaling.py",
    "export/test_quantization.py",
    "data/test_archives.py",
    "storage/test_database.py",
)
_RANKS = {TESTS / name: rank for rank, name in enumerate(LONGEST_FIRST)}


def sort_by_file(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first and leave the others in their order."""
    items.sort(key=lambda item: _RANKS.get(item.path, len(_RANKS)))
