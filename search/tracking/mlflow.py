"""Runs of MLflow: one for each trial, in an experiment that is called like the study."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import: nothing of a study leaves for others

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

STATUS = {"trained": "FINISHED", "pruned_at_rung": "FINISHED", "interrupted": "KILLED"}  # else FAILED
LONGEST = 6_000  # characters of a parameter that MLflow takes


class MLflow:
    """Writes the trials of a study to the server that MLFLOW_TRACKING_URI names, or else to a database of its own.

    Args:
        study: name of the experiment.
        database: the SQLite file without a server.
    """

    def __init__(self, study: str, database: Path) -> None:
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database}")
        experiment = self._client.get_experiment_by_name(study)
        self._experiment = experiment.experiment_id if experiment else self._client.create_experiment(study)
        self._run: str | None = None

    def begin(self, name: str, parameters: Mapping[str, Any]) -> None:
        self._run = self._client.create_run(self._experiment, run_name=name).info.run_id
        self._client.log_batch(self._run, params=[Param(key, str(value)[:LONGEST]) for key, value in parameters.items()])

    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        self._log(values, step)

    def end(self, outcome: str, scores: Mapping[str, float]) -> None:
        self._log(scores, 0)
        self._client.set_tag(self._run, "outcome", outcome)
        self._client.set_terminated(self._run, STATUS.get(outcome, "FAILED"))

    def _log(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self._run, metrics=[Metric(key, value, now, step) for key, value in values.items()])
