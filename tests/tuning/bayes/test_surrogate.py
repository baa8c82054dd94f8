"""The Gaussian process against scikit-learn's, brute force and known functions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern

from search.tuning.bayes.acquisition import expected_improvement
from search.tuning.bayes.features import Features
from search.tuning.bayes.surrogate import Kernel, Prediction, Scaling, Surrogate, _negative_log_posterior


def sample(n: int, seed: int = 0) -> tuple[list[Features], np.ndarray, np.random.Generator]:
    """Networks of three features, one in a group of its own, and one that does not vary."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(n, 3))
    rows = [{"size.a": a, "size.b": b, "shape.c": c, "shape.same": 1.0} for a, b, c in table]
    return rows, 0.5 + 0.03 * np.sin(2 * table[:, 0]) + 0.02 * table[:, 2], generator


def fitted(n: int, noise: float = 0.0, seed: int = 0) -> tuple[Surrogate, Scaling, np.ndarray, np.ndarray]:
    rows, y, generator = sample(n, seed)
    scaling = Scaling.of(rows)
    x = scaling(rows)
    return Surrogate(scaling, x, y + noise * generator.normal(size=n)), scaling, x, y


def test_features_that_do_not_vary_are_left_out_and_the_others_standardised() -> None:
    scaling = Scaling.of(sample(50)[0])
    x = scaling(sample(50)[0])
    assert scaling.names == ("shape.c", "size.a", "size.b")
    assert np.allclose(x.mean(axis=0), 0) and np.allclose(x.std(axis=0), 1)
    assert [list(group) for group in scaling.groups] == [[0], [1, 2]]


def test_it_learns_a_smooth_function_and_is_sure_of_it_where_it_has_seen_it() -> None:
    surrogate, scaling, x, _ = fitted(80)
    rows, y, _ = sample(200, seed=1)
    prediction = surrogate.predict(scaling(rows))
    assert np.corrcoef(prediction.mean, y)[0, 1] > 0.97
    assert surrogate.predict(x).deviation.mean() < prediction.deviation.mean()
    assert np.mean(np.abs(prediction.mean - y) < 2 * prediction.deviation + 0.003) > 0.9


def test_predictions_equal_those_of_scikit_learn_with_the_same_hyperparameters() -> None:
    surrogate, scaling, x, _ = fitted(40, noise=0.01)
    joint, shape, size, *single, linear, noise = np.exp(surrogate._theta)
    scale = np.array([shape, size * np.sqrt(2), size * np.sqrt(2)])  # mean squares over the columns of a group
    alone = [np.array([single[1], np.inf, np.inf]), np.array([np.inf, *[single[3] * np.sqrt(2)] * 2])]
    kernel = ConstantKernel(joint**2) * Matern(scale, nu=2.5) + ConstantKernel(linear**2 / 3) * DotProduct(1e-9)
    for amplitude, length in zip((single[0], single[2]), alone, strict=True):
        kernel += ConstantKernel(amplitude**2) * Matern(np.minimum(length, 1e9), nu=2.5)
    other = scaling(sample(20, seed=2)[0])
    process = GaussianProcessRegressor(kernel, alpha=noise**2 + 1e-6, optimizer=None).fit(x, surrogate._y)
    mean, deviation = process.predict(other, return_std=True)
    prediction = surrogate.predict(other)
    assert np.allclose(prediction.mean, surrogate._offset + surrogate._unit * mean, atol=1e-7)
    assert np.allclose(prediction.deviation, surrogate._unit * deviation, atol=1e-6)


def test_the_gradient_of_the_posterior_density_is_exact() -> None:
    surrogate, scaling, x, _ = fitted(30, noise=0.01)
    kernel = Kernel(tuple(scaling.groups))
    compared, width = kernel.compare(x, x), np.ones(len(kernel.names))
    theta = np.array([0.1, -0.2, 0.3, -0.5, 0.2, -0.3, 0.4, -0.4, -1.0])
    arguments = (kernel, compared, surrogate._y, np.full(30, 0.01), 0 * width, width)
    numeric = approx_fprime(theta, lambda at: _negative_log_posterior(at, *arguments)[0], 1e-6)
    assert np.allclose(_negative_log_posterior(theta, *arguments)[1], numeric, atol=1e-3)


def test_it_explains_left_out_observations_of_a_function_and_none_of_noise() -> None:
    assert fitted(30, noise=0.005)[0].explained() > 0.5
    generator = np.random.default_rng(0)
    explained = []
    for seed in range(6):
        rows = sample(30, seed)[0]
        scaling = Scaling.of(rows)
        explained.append(Surrogate(scaling, scaling(rows), generator.normal(size=30)).explained())
    assert np.median(explained) < 0.05


def test_an_observation_with_variance_counts_less() -> None:
    rows, y, _ = sample(40)
    scaling = Scaling.of(rows)
    x, wrong = scaling(rows), y.copy()
    wrong[0] += 0.1
    certain = Surrogate(scaling, x, wrong).predict(x[:1]).mean[0]
    doubtful = Surrogate(scaling, x, wrong, np.where(np.arange(40) == 0, 0.1**2, 0.0)).predict(x[:1]).mean[0]
    assert abs(doubtful - y[0]) < 0.5 * abs(certain - y[0])


def test_failed_trainings_do_not_hide_the_differences_between_the_others() -> None:
    rows, y, _ = sample(60)
    scaling = Scaling.of(rows)
    failed = y.copy()
    failed[::20] = 0.1
    prediction = Surrogate(scaling, scaling(rows), failed).predict(scaling(rows))
    ordinary = np.arange(60) % 20 != 0
    assert np.corrcoef(prediction.mean[ordinary], y[ordinary])[0, 1] > 0.8


def test_trials_in_training_make_their_neighbourhood_certain_and_change_no_mean_there() -> None:
    surrogate, scaling, _, _ = fitted(30, noise=0.01)
    pending = scaling(sample(3, seed=5)[0])
    before = surrogate.predict(pending)
    after = surrogate.conditioned(pending, before.mean).predict(pending)
    assert np.allclose(before.mean, after.mean, atol=1e-6)
    assert np.all(after.deviation < before.deviation)


def test_expected_improvement_equals_its_mean_over_draws() -> None:
    draws = np.random.default_rng(0).normal(size=400_000)
    for mean, deviation in ((0.4, 0.02), (0.5, 0.02), (0.52, 0.001)):
        prediction = Prediction(np.array([mean]), np.array([deviation]))
        expected = np.maximum(mean + deviation * draws - 0.5, 0).mean()
        assert expected_improvement(prediction, 0.5)[0] == pytest.approx(expected, abs=1e-4)
