"""Forecasts of pruned trials, and which trials the surrogate learns from."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.storage.attributes import OUTCOME
from search.study.study_file import parse
from search.training.result import Outcome
from search.tuning.bayes.observations import forecast, observe

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


FULL = [trial({2: early, 6: final}, final) for early, final in ((0.30, 0.50), (0.40, 0.58), (0.35, 0.54), (0.45, 0.62))]


def test_a_pruned_trial_is_forecast_by_the_line_through_the_trials_in_full() -> None:
    mean, variance = forecast(trial({2: 0.25}), FULL)
    assert mean == pytest.approx(0.46, abs=0.01)
    assert 0 < variance < 0.03**2
    assert forecast(trial({2: 0.10}), FULL)[1] > variance  # further from what was seen


def test_with_few_trials_in_full_their_gain_is_added() -> None:
    mean, variance = forecast(trial({2: 0.25}), FULL[:1])
    assert mean == pytest.approx(0.45)
    assert variance == pytest.approx(0.03**2)
    assert forecast(trial({2: 0.25}), []) == (0.25, pytest.approx(0.05**2))


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
