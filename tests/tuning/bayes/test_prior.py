"""The sampler's prior from other studies whose objective is a function of the network; nothing is trained."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from search.storage.attributes import PROPOSAL
from search.study.records import proposal_words
from search.tuning.bayes import Prior
from search.tuning.bayes.observations import Observation, observe
from search.tuning.bayes.prior import MOST_TRIALS, PriorStudy, Trend
from search.tuning.bayes.sampler import STARTUP, STARTUP_WITH_PRIOR
from search.tuning.bayes.surrogate import Scaling, Surrogate
from tests.tuning.bayes.test_sampler import SPACE, Search, accuracy, configured

TRIALS = 24
TRIALS_OF_SEARCH = STARTUP_WITH_PRIOR + 3
DATA = {"fingerprint": "1" * 16, "input": [32, 32, 3], "classes": 4, "images": {"training": 500}}  # not those of the search


@pytest.fixture(scope="module")
def other() -> PriorStudy:
    """Random networks of a wider space under a larger budget, with accuracies of another data set."""
    space = SPACE | {"blocks": {"low": 2, "high": 7}, "width": {"low": 8, "high": 96, "step": 8}}
    config = configured("reject", space, search={"sampler": "random"}, budget={"params": 30_000})
    search = Search(config, seed=1, objective=lambda candidate: 0.1 + 0.5 * accuracy(candidate))
    trials = search.run(TRIALS)
    return PriorStudy("other", config.dump(), DATA, observe(config, trials, own=-1).ended)


@pytest.fixture(scope="module")
def search(other: PriorStudy) -> Search:
    search = Search(configured(), prior=Prior([other]))
    search.run(TRIALS_OF_SEARCH)
    return search


def test_it_is_the_same_after_it_was_stored(other: PriorStudy) -> None:
    assert PriorStudy.from_dict(json.loads(json.dumps(other.to_dict()))) == other
    assert len(other.observations) == TRIALS


def test_its_networks_are_preferred_from_the_third_trial_on(search: Search) -> None:
    scores = [trial.values[0] for trial in search.study.trials]
    alone = [trial.values[0] for trial in Search(configured()).run(STARTUP)]
    assert scores[:STARTUP_WITH_PRIOR] == alone[:STARTUP_WITH_PRIOR]
    assert np.mean(scores[STARTUP_WITH_PRIOR:]) > np.mean(alone[STARTUP_WITH_PRIOR:]) + 0.01


def test_a_trial_stores_the_weight_of_its_prior(search: Search) -> None:
    reasons = [trial.user_attrs[PROPOSAL] for trial in search.study.trials]
    assert reasons[0] == {"reason": "random", "note": f"one of the first {STARTUP_WITH_PRIOR} trials"}
    for reason in reasons[STARTUP_WITH_PRIOR:]:
        assert reason["prior"]["other"] > 0.3
        assert f"prior: other with weight {reason['prior']['other']:.2f}" in (proposal_words(reason) or "")


def test_the_same_seed_and_the_stored_copy_propose_the_same(search: Search, other: PriorStudy) -> None:
    copy = Search(configured(), prior=Prior([PriorStudy.from_dict(json.loads(json.dumps(other.to_dict())))]))
    for trial in search.study.trials[:-1]:
        copy.study.add_trial(trial)
    for key, index in search.claims.held().items():
        if index < TRIALS_OF_SEARCH - 1:
            copy.claims.claim(key, index)
    (*_, again) = copy.run(1)
    assert again.params == search.study.trials[-1].params
    assert again.user_attrs == search.study.trials[-1].user_attrs


def test_trials_in_training_and_costs_go_with_a_prior(other: PriorStudy) -> None:
    directions = {"directions": {"accuracy": "maximize", "params": "minimize"}}
    search = Search(configured("reject", search=directions), prior=Prior([other, other]))
    search.run(STARTUP_WITH_PRIOR)
    keys = {search.ask()[1].key for _ in range(2)}  # the first is in training when the second is chosen
    assert len(keys) == 2


def test_a_study_without_a_pattern_or_with_few_trials_is_not_used(other: PriorStudy) -> None:
    alike = tuple(replace(entry, accuracy=0.5) for entry in other.observations)
    without_pattern = Prior([replace(other, observations=alike)])
    few = Prior([PriorStudy("few", other.config, other.data, other.observations[:7])])
    assert without_pattern.runs == few.runs == []
    assert "which show no pattern: not used" in without_pattern.text
    assert "few (7 trials, fewer than 8: not used)" in few.text
    unused = Search(configured(), prior=few)
    unused.run(1)
    assert unused.study.trials[0].user_attrs[PROPOSAL]["note"] == f"one of the first {STARTUP} trials"


def test_many_trials_are_thinned_out(other: PriorStudy) -> None:
    many = tuple(Observation(number, other.observations[number % TRIALS].values, 0.5) for number in range(2 * MOST_TRIALS))
    features, accuracies, variances = PriorStudy("many", other.config, other.data, many).sample()
    assert len(features) == len(accuracies) == len(variances) == MOST_TRIALS


def trending(sign: float, n: int) -> tuple[Surrogate, np.ndarray, np.ndarray, np.ndarray]:
    """A surrogate of networks whose accuracy follows a trend, or its opposite, with noise."""
    generator = np.random.default_rng(0)
    table = generator.normal(size=(60, 3))
    rows = [{"size.a": a, "shape.b": b, "recipe.c": c} for a, b, c in table]
    trend = np.tanh(table[:, 0] * table[:, 1])[:, None]
    y = 0.5 + sign * 0.05 * trend[:, 0] + 0.01 * generator.normal(size=60)
    scaling = Scaling.of(rows)
    x = scaling(rows)
    return Surrogate(scaling, x[:n], y[:n], None, trend[:n], 0.05), x, trend, y


def test_a_trend_predicts_from_the_second_observation_on() -> None:
    surrogate, x, trend, y = trending(1, 2)
    assert np.corrcoef(surrogate.predict(x[2:], trend[2:]).mean, y[2:])[0, 1] > 0.8


def test_observations_that_contradict_a_trend_take_its_weight_away() -> None:
    weights = [trending(-1, n)[0].coefficients[0] for n in (2, 6, 12)]
    assert weights[0] > weights[1] > weights[2]
    assert weights[2] < 0.1
    surrogate, x, trend, y = trending(-1, 12)
    assert np.corrcoef(surrogate.predict(x[12:], trend[12:]).mean, y[12:])[0, 1] > 0.5


def test_the_weight_and_the_prediction_equal_those_of_a_brute_force_regression() -> None:
    """Integrating the coefficient out is a Gaussian process with one more term in its covariance, a prior mean taken off."""
    surrogate, x, trend, _ = trending(1, 20)
    kernel, theta = surrogate._kernel, surrogate._theta
    both = kernel.covariance(kernel.compare(x, x), theta)
    noise = np.exp(2 * theta[-1]) + 1e-6
    inner = np.linalg.inv(both[:20, :20] + noise * np.eye(20))
    known = trend[:20, 0]
    precision = 1 + known @ inner @ known
    weight = (0.7 + known @ inner @ surrogate._y) / precision  # ridge regression towards 0.7 with residuals of the process
    assert surrogate.coefficients[0] == pytest.approx(weight, abs=1e-6)
    mean = trend[20:, 0] * weight + both[20:, :20] @ inner @ (surrogate._y - known * weight)
    prediction = surrogate.predict(x[20:], trend[20:])
    assert np.allclose((prediction.mean - surrogate._offset) / surrogate.deviation, mean, atol=1e-6)


def test_a_trend_is_standardised_within_its_own_study(other: PriorStudy) -> None:
    features, accuracies, variances = other.sample()
    trends = [
        Prior([Trend.of("other", features, scale * accuracies + shift, scale**2 * variances)]).trends(features)
        for scale, shift in ((1.0, 0.0), (0.1, 0.7))
    ]
    assert np.allclose(*trends, atol=1e-3)
    assert abs(trends[0].mean()) < 0.2 and 0.5 < trends[0].std() <= 1
