"""Made-up networks: a number decides how its training ends, and how accurate it is."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, create_trial

from search.storage.attributes import (
    ADOPTED,
    BEST_VAL_ACCURACY,
    CONTENDER,
    EPOCHS,
    INDEX,
    KEY,
    OUTCOME,
    PARAMS,
    REASON,
    REPEAT,
)
from search.storage.claims import Claims
from search.storage.database import buffered_writes, set_trial_attributes
from search.training.result import Outcome, TrialOver

NETWORK = "network"  # the one parameter of the space
TRAINED_EPOCHS = 2

_ENDS = {3: Outcome.PRUNED_AT_RUNG, 4: Outcome.FAILED, 5: Outcome.DIVERGED}  # by the network's number modulo 6


class NetworkSampler(BaseSampler):
    """Proposes a network that no other trial has claimed, as `search.tuning.sampler` does; the same for one index."""

    def __init__(self, seed: int, claims: Claims) -> None:
        self._seed, self.claims = seed, claims

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """No parameter is sampled with others."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """No parameter is sampled with others."""
        return {}

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> int:
        """The first network, in an order of the trial's index, that was free a moment ago."""
        index, claimed = trial.user_attrs[INDEX], self.claims.held()
        networks = list(range(param_distribution.low, param_distribution.high + 1))
        random.Random(f"{self._seed} {index}").shuffle(networks)
        return next((network for network in networks if claimed.get(_key(network), index) == index), networks[0])


def train_candidate(trial: optuna.Trial, claims: Claims, networks: int, sleep: Callable[[float], None]) -> float:
    """Propose, claim and train, with the writes of `Objective.candidate` in their order."""
    with buffered_writes(trial):
        network = trial.suggest_int(NETWORK, 0, networks - 1)
        trial.set_user_attr(PARAMS, 1_000 + network)
    if not claims.claim(_key(network), trial.user_attrs[INDEX]):
        set_trial_attributes(trial, {OUTCOME: Outcome.REJECTED, REASON: "the same network as another trial"})
        raise optuna.TrialPruned
    set_trial_attributes(trial, {KEY: _key(network)})
    return _train(trial, network, sleep)


def trained_elsewhere(network: int, networks: int) -> FrozenTrial:
    """A finished trial of this network, as another run has trained it."""
    trial = create_trial(
        value=0.0,
        params={NETWORK: network},
        distributions={NETWORK: IntDistribution(0, networks - 1)},
        intermediate_values=dict.fromkeys(range(1, TRAINED_EPOCHS + 1), 0.5),
    )
    accuracy = accuracy_of(trial)
    trial.values = [accuracy]
    origin = {ADOPTED: {"run": "another", "trial": network}, KEY: _key(network)}
    results = {PARAMS: 1_000 + network, EPOCHS: TRAINED_EPOCHS, BEST_VAL_ACCURACY: accuracy, OUTCOME: Outcome.TRAINED}
    trial.user_attrs = origin | results
    return trial


def train_finalist(trial: optuna.Trial, sleep: Callable[[float], None]) -> float:
    """Train a finalist on a fresh seed."""
    return _train(trial, 0, sleep)


def accuracy_of(trial: optuna.Trial | FrozenTrial) -> float:
    """The accuracy that training this trial's network gives."""
    attributes = trial.user_attrs
    if CONTENDER in attributes:
        return random.Random(f"{attributes[CONTENDER]} {attributes[REPEAT]}").random()
    return random.Random(f"{trial.params[NETWORK]}").random()


def _train(trial: optuna.Trial, network: int, sleep: Callable[[float], None]) -> float:
    accuracy, end = accuracy_of(trial), _ENDS.get(network % 6, Outcome.TRAINED)
    for epoch in range(1, TRAINED_EPOCHS + 1):
        sleep(1.0 + network % 5)
        trial.report(accuracy * epoch / TRAINED_EPOCHS, epoch)
    if end in (Outcome.FAILED, Outcome.DIVERGED):
        set_trial_attributes(trial, {OUTCOME: end, REASON: "by its number"})
        if end == Outcome.DIVERGED:
            raise optuna.TrialPruned
        raise TrialOver(end, "by its number")
    set_trial_attributes(trial, {EPOCHS: TRAINED_EPOCHS})
    set_trial_attributes(trial, {BEST_VAL_ACCURACY: accuracy})
    set_trial_attributes(trial, {OUTCOME: end})
    if end == Outcome.PRUNED_AT_RUNG:
        raise optuna.TrialPruned
    return accuracy


def _key(network: int) -> str:
    return f"network-{network}"
