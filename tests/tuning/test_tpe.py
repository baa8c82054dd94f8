"""TPE that does less: against Optuna's own, proposal by proposal."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from search.tuning.tpe import QuickTPE

SPACE: dict[str, BaseDistribution] = {
    "order": CategoricalDistribution(["a", "b", True, 3]),
    "width": IntDistribution(16, 256, step=8),
    "rate": FloatDistribution(1e-4, 1e-1, log=True),
    "dropout": FloatDistribution(0.0, 0.3, step=0.05),
}
OPTIONS: dict[str, Any] = {"multivariate": True, "constant_liar": False, "n_startup_trials": 10}


@pytest.fixture
def study() -> optuna.Study:
    """Forty trials, some of them pruned, infeasible or without one of the parameters."""
    found, chance = optuna.create_study(direction="maximize"), optuna.samplers.RandomSampler(seed=0)
    for number in range(40):
        values = {
            name: chance.sample_independent(found, found.ask()._cached_frozen_trial, name, SPACE[name]) for name in SPACE
        }
        if number % 9 == 4:
            del values["rate"]
        about: dict[str, Any] = {"params": values, "distributions": {name: SPACE[name] for name in values}}
        about["constraints"] = {"params": 5.0 if number % 7 == 3 else -5.0}
        if number % 5 == 2:
            found.add_trial(create_trial(state=optuna.trial.TrialState.PRUNED, intermediate_values={1: 0.1}, **about))
        else:
            found.add_trial(create_trial(value=values["width"] / 256 - values["dropout"], **about))
    return found


def draws(sampler: optuna.samplers.TPESampler, study: optuna.Study, n: int) -> list[dict[str, Any]]:
    trial = study.get_trials()[-1]
    study._thread_local.cached_all_trials = None  # as when a trial is told
    return [sampler.sample_relative(study, trial, SPACE) for _ in range(n)]


def test_proposals_are_those_of_optuna(study: optuna.Study) -> None:
    ours, theirs = QuickTPE(seed=3, **OPTIONS), optuna.samplers.TPESampler(seed=3, **OPTIONS)
    for _ in range(3):
        found = draws(ours, study, 4)
        assert found == draws(theirs, study, 4)
        assert found[0] != found[1]
        new = found[0]
        study.add_trial(create_trial(value=2.0, params=new, distributions=SPACE))  # what is learnt from it is learnt


def test_what_was_learnt_serves_every_draw_until_there_are_other_trials(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    real = QuickTPE._get_internal_repr
    monkeypatch.setattr(QuickTPE, "_get_internal_repr", lambda *words: read.append(1) or real(*words))
    sampler = QuickTPE(seed=3, **OPTIONS)
    draws(sampler, study, 5)
    assert len(read) == 2  # below and above
    study.add_trial(create_trial(value=2.0, params=draws(sampler, study, 1)[0], distributions=SPACE))
    draws(sampler, study, 5)
    assert len(read) == 3  # one more of the best, of the others the same


def test_with_two_values_and_beside_running_trials_proposals_are_those_of_optuna(study: optuna.Study) -> None:
    two = optuna.create_study(directions=["maximize", "minimize"])
    for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        values = [trial.values[0], trial.params["width"]]
        two.add_trial(create_trial(values=values, params=trial.params, distributions=trial.distributions))
    for liar in (False, True):
        options = OPTIONS | {"constant_liar": liar}
        running = two.ask()
        running.suggest_int("width", 16, 256, step=8)
        assert draws(QuickTPE(seed=5, **options), two, 3) == draws(optuna.samplers.TPESampler(seed=5, **options), two, 3)
