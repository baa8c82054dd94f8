"""Every private name of Optuna that the application uses.

`tests/storage/test_contract.py` compares them with the installed Optuna, so that a renamed one fails a test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial

StudyModel = models.StudyModel
TrialModel = models.TrialModel
TrialParamModel = models.TrialParamModel
TrialValueModel = models.TrialValueModel
TrialIntermediateValueModel = models.TrialIntermediateValueModel
TrialUserAttributeModel = models.TrialUserAttributeModel
TrialSystemAttributeModel = models.TrialSystemAttributeModel
TrialHeartbeatModel = models.TrialHeartbeatModel
StudySystemAttributeModel = models.StudySystemAttributeModel


def base_storage_of(study: optuna.Study) -> BaseStorage:
    """The storage that a study was opened with."""
    return study._storage


def study_id_of(study: optuna.Study) -> int:
    """The database's id of a study."""
    return study._study_id


def trial_id_of(trial: optuna.Trial | FrozenTrial) -> int:
    """The database's id of a trial; its number counts within one study, this id within the database."""
    return trial._trial_id


def generation_attribute() -> str:
    """System attribute of a trial in which Optuna's NSGA-II stores its generation."""
    return optuna.samplers.NSGAIISampler._get_generation_key()


class StudyView:
    """A study with its trials changed on the way to a sampler or pruner of Optuna."""

    def __init__(self, study: optuna.Study, change: Callable[[list[FrozenTrial]], list[FrozenTrial]]) -> None:
        self._study, self._change = study, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        """As `optuna.Study.get_trials`, changed."""
        return self._change(self._study.get_trials(*arguments, **options))

    def _get_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        """As Optuna's samplers read trials, changed."""
        return self._change(self._study._get_trials(*arguments, **options))
