"""Forecasts of pruned trials, and which trials the surrogate learns from."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.storage.attributes import OUTCOME
from search.study.study_file import parse
from search.training.result import Outcome
from search.tuning.bayes.observations import observe

CONFIG = parse(
    {
        "base": 0.5,
        "data": {"name": "digits"},
        "budget": {"params": 5_000},
        "space": {"blocks": 2, "width": {"low": 8, "high": 64, "step": 8, "per": "net"}, "pools": 0},
        "search": {"sampler": "bayes"},
    },
    "test",
)


def trial(curve: dict[int, float], value: float | None = None, outcome: str = "trained", width: int = 8) -> FrozenTrial:
    (name,) = CONFIG.parameters
    return create_trial(
        state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
        value=value,
        params={name: width},
        distributions={name: IntDistribution(8, 64, step=8)},
        intermediate_values=curve,
        user_attrs={OUTCOME: outcome},
    )


def test_it_learns_from_trained_pruned_and_failed_trials_and_knows_those_in_progress() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trials([trial({2: 0.3, 6: 0.5}, 0.5, width=16), trial({2: 0.2}, outcome="pruned_at_rung", width=24)])
    study.add_trials([trial({}, outcome=Outcome.DIVERGED, width=32), trial({}, outcome=Outcome.REJECTED, width=40)])
    (name,) = CONFIG.parameters
    study.enqueue_trial({name: 48})
    study.enqueue_trial({})  # to be sampled whole: nothing is known of it
    observations = observe(CONFIG, study.get_trials(deepcopy=False), own=-1)
    assert [(one.values[name], one.is_final) for one in observations.ended] == [(16, True), (24, False), (32, False)]
    assert observations.accuracies[1] == pytest.approx(0.4)
    assert observations.accuracies[2] == observations.accuracies[:2].min()
    assert [values[name] for values in observations.pending] == [48]
    assert observe(CONFIG, study.get_trials(deepcopy=False), own=0).ended[0].number == 1
