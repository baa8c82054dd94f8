"""Gaussian process on features: Matern 5/2 kernels on all features and on each group of them, a linear part, and noise.

(Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006: chapter 5 for the marginal likelihood and its
gradient, section 5.4.2 for leave-one-out predictions from one inverse.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from search.tuning.bayes.features import Features

Array = npt.NDArray[np.float64]

BY_CHANCE = 2.0  # share of left-out variance that the surrogate explains of noise, times the number of observations
FITTED = 128  # observations that hyperparameters are fitted to, which takes time with their third power
CLIPPED = 3.0  # standard deviations below the median: accuracies of failed trainings would hide all other differences
EXTREME = 4.0  # standard deviations at which features are clipped
JITTER = 1e-6
PRIORS = {  # of the logarithms of hyperparameters: mean and standard deviation, for observations of unit variance
    "joint": (math.log(0.8), 0.7),  # amplitude of the Matern kernel on all groups
    "group": (math.log(0.4), 0.7),  # of that on one group
    "length": (math.log(1.5), 0.8),
    "linear": (math.log(0.4), 0.9),
    "noise": (math.log(0.4), 0.7),
}
COEFFICIENT = (0.7, 1.0)  # mean and standard deviation of the sum of the coefficients of trends
BORROWED = 4  # observations which the deviation of a trend's own study counts as, beside that of the observations
NOISIER = 0.7  # offset of the logarithm of the noise, at which the second search for hyperparameters begins


@dataclass(frozen=True)
class Kernel:
    """Sum of a Matern 5/2 kernel on all groups of features, one on each group, and a linear one.

    The parts of single groups let what a group explains by itself, such as the learning rate, carry over to networks that
    differ in everything else. Hyperparameters are logarithms: for each Matern kernel its amplitude and a length scale for
    each of its groups, then the amplitude of the linear kernel, then the noise.
    """

    groups: tuple[npt.NDArray[np.intp], ...]  # columns of each

    @property
    def parts(self) -> list[tuple[int, ...]]:
        """Groups of each Matern kernel."""
        every = tuple(range(len(self.groups)))
        return [every, *((group,) for group in every)] if len(every) > 1 else [every]

    @property
    def names(self) -> list[str]:
        """The prior of each hyperparameter."""
        names = []
        for part in self.parts:
            names += ["joint" if len(part) == len(self.groups) else "group", *["length"] * len(part)]
        return [*names, "linear", "noise"]

    def compare(self, a: Array, b: Array) -> Comparison:
        """Squared distances by group and inner products of two tables of standardised features (n, features)."""
        squares = [_squares(a[:, group], b[:, group]) / len(group) for group in self.groups]
        return Comparison(squares, a @ b.T / max(a.shape[1], 1))

    def covariance(self, compared: Comparison, theta: Array) -> Array:
        """Covariance without noise."""
        total: Array = np.exp(2 * theta[-2]) * compared.products
        index = 0
        for part in self.parts:
            lengths = theta[index + 1 : index + 1 + len(part)]
            radius = _radius(compared, part, lengths)
            total = total + np.exp(2 * theta[index]) * (1 + radius + radius**2 / 3) * np.exp(-radius)
            index += 1 + len(part)
        return total

    def slopes(self, compared: Comparison, theta: Array) -> tuple[Array, list[Array]]:
        """Covariance without noise, and its derivative by each hyperparameter but the noise."""
        total: Array = np.exp(2 * theta[-2]) * compared.products
        linear, slopes, index = 2 * total, list[Array](), 0
        for part in self.parts:
            lengths = theta[index + 1 : index + 1 + len(part)]
            radius = _radius(compared, part, lengths)
            decay = np.exp(2 * theta[index] - radius)
            matern = (1 + radius + radius**2 / 3) * decay
            slopes.append(2 * matern)
            common = (5 / 3) * (1 + radius) * decay
            slopes += [
                common * compared.squares[group] * np.exp(-2 * length) for group, length in zip(part, lengths, strict=True)
            ]
            total = total + matern
            index += 1 + len(part)
        return total, [*slopes, linear]

    def variance(self, x: Array, theta: Array) -> Array:
        """Prior variance of each row."""
        amplitudes = np.array([name in ("joint", "group") for name in self.names])
        matern = np.exp(2 * theta[amplitudes]).sum()
        variance: Array = matern + np.exp(2 * theta[-2]) * (x**2).sum(axis=1) / max(x.shape[1], 1)
        return variance


class Comparison(NamedTuple):
    """Two tables of features, compared row by row: each array has the shape (rows of a, rows of b)."""

    squares: list[Array]  # mean squared difference over the columns of each group
    products: Array  # mean product over all columns


@dataclass(frozen=True)
class Scaling:
    """Features as standardised columns; those that do not vary in the sample are left out."""

    names: tuple[str, ...]
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, sample: Sequence[Features]) -> Scaling:
        """The scaling under which the columns of this sample have mean 0 and variance 1."""
        names = sorted({name for features in sample for name in features})
        table = _table(names, sample)
        deviation = table.std(axis=0)
        varying = deviation > 1e-9
        kept = tuple(name for name, varies in zip(names, varying, strict=True) if varies)
        return cls(kept, table.mean(axis=0)[varying], deviation[varying])

    def __call__(self, sample: Sequence[Features]) -> Array:
        """Rows of columns, shape (len(sample), len(names))."""
        scaled = (_table(self.names, sample) - self.mean) / self.deviation
        return np.clip(scaled, -EXTREME, EXTREME)

    @property
    def groups(self) -> list[npt.NDArray[np.intp]]:
        """Indices of the columns of each group."""
        heads = [name.partition(".")[0] for name in self.names]
        return [np.flatnonzero([head == group for head in heads]) for group in dict.fromkeys(heads)]


def _table(names: Sequence[str], sample: Sequence[Features]) -> Array:
    return np.array([[features.get(name, 0.0) for name in names] for features in sample]).reshape(len(sample), len(names))


@dataclass(frozen=True)
class Prediction:
    """Posterior of the accuracy itself, without the noise of one training; a value for each row."""

    mean: Array
    deviation: Array


class Surrogate:
    """A Gaussian process fitted to observations.

    With trends its mean is a sum of known functions with unknown coefficients, whose normal prior is integrated out
    (Rasmussen and Williams, section 2.7): observations that contradict a trend turn its coefficient to 0 or below.

    Args:
        x: standardised features, shape (n, columns).
        y: accuracies, shape (n,).
        variance: of each observation beyond the noise of a training, such as that of a forecast of a pruned trial.
        trends: values of the known functions, of mean 0 and variance 1 or less, shape (n, functions).
        borrowed: standard deviation of the accuracies that the trends are of, which few observations are standardised by.
    """

    def __init__(
        self,
        scaling: Scaling,
        x: Array,
        y: Array,
        variance: Array | None = None,
        trends: Array | None = None,
        borrowed: float | None = None,
    ) -> None:
        self.scaling, self._x = scaling, x
        self._kernel = Kernel(tuple(scaling.groups))
        self._trends = np.zeros((len(y), 0)) if trends is None else trends
        middle = float(np.median(y))
        clipped = np.maximum(y, middle - CLIPPED * _robust_deviation(y, borrowed))
        self._unit = max(_joint_deviation(clipped, borrowed), 1e-9)
        self._offset = float(clipped.mean() - self._unit * _expected(self._trends).mean())
        self._y = (clipped - self._offset) / self._unit
        self._extra = np.zeros(len(y)) if variance is None else variance / self._unit**2
        self._theta = self._fit()
        self._condition()

    @property
    def noise(self) -> float:
        """Standard deviation of one training's accuracy around the network's own."""
        return float(np.exp(self._theta[-1])) * self._unit

    @property
    def deviation(self) -> float:
        """Standard deviation of the observed accuracies, by which they are standardised."""
        return self._unit

    def standardised_mean(self, x: Array) -> Array:
        """Posterior mean at rows of standardised features, in standard deviations of the observed accuracies."""
        mean: Array = (self.predict(x).mean - self._offset) / self._unit
        return mean

    def predict(self, x: Array, trends: Array | None = None) -> Prediction:
        """Posterior at rows of standardised features, and of trends if it has them."""
        from scipy.linalg import solve_triangular

        trends = np.zeros((len(x), 0)) if trends is None else trends
        cross = self._kernel.covariance(self._kernel.compare(x, self._x), self._theta)
        cross = cross + _trend_covariance(trends, self._trends)
        halfway = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        before = self._kernel.variance(x, self._theta) + _coefficient_variance(trends) * (trends**2).sum(axis=1)
        variance = np.maximum(before - (halfway**2).sum(axis=0), 1e-12)
        mean = _expected(trends) + cross @ self._weights
        return Prediction(self._offset + self._unit * mean, self._unit * np.sqrt(variance))

    def conditioned(self, x: Array, y: Array, trends: Array | None = None) -> Surrogate:
        """The process with further observations under the same hyperparameters, such as those of trials in training."""
        other = object.__new__(Surrogate)
        other.scaling, other._kernel, other._offset, other._unit = self.scaling, self._kernel, self._offset, self._unit
        other._trends = np.vstack([self._trends, np.zeros((len(y), 0)) if trends is None else trends])
        other._theta = self._theta
        other._x = np.vstack([self._x, x])
        other._y = np.concatenate([self._y, (y - self._offset) / self._unit])
        other._extra = np.concatenate([self._extra, np.zeros(len(y))])
        other._condition()
        return other

    def explained(self) -> float:
        """Share of the variance that is explained of observations left out one at a time; at most 1, 0 or less for none.

        The hyperparameters have seen them, so that it is a little above 0 for noise.
        """
        inverse = self._inverse()
        errors, n = (inverse @ (self._y - _expected(self._trends))) / np.diag(inverse), len(self._y)
        others = (self._y.sum() - self._y) / (n - 1)  # mean of the others, which a constant model predicts
        total = float(((self._y - others) ** 2).sum())
        return 1 - float((errors**2).sum()) / total if total > 1e-9 else 0.0

    @property
    def is_informative(self) -> bool:
        """True if it explains more of left-out observations than it would of noise."""
        return self.explained() >= BY_CHANCE / len(self._y)

    @property
    def coefficients(self) -> Array:
        """Posterior mean of the coefficient of each trend, in units of standardised accuracies; shape (functions,)."""
        count = max(self._trends.shape[1], 1)
        weights: Array = COEFFICIENT[0] / count + _coefficient_variance(self._trends) * (self._trends.T @ self._weights)
        return weights

    # --- fitting ---

    def _fit(self) -> Array:
        """Hyperparameters of the highest posterior density."""
        from scipy.optimize import minimize

        chosen = np.linspace(0, len(self._y) - 1, min(len(self._y), FITTED)).round().astype(int)
        x, extra, trends = self._x[chosen], self._extra[chosen], self._trends[chosen]
        residuals = self._y[chosen] - _expected(trends)
        by_trends = _trend_covariance(trends, trends)
        compared, names = self._kernel.compare(x, x), self._kernel.names
        centre = np.array([PRIORS[name][0] for name in names])
        width = np.array([PRIORS[name][1] for name in names])
        bounds = [(middle - 4 * sigma, middle + 4 * sigma) for middle, sigma in zip(centre, width, strict=True)]
        best, lowest = centre, math.inf
        for offset in (0.0, NOISIER):
            start = centre.copy()
            start[-1] += offset
            result = minimize(
                _negative_log_posterior,
                start,
                args=(self._kernel, compared, residuals, extra, centre, width, by_trends),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options={"maxiter": 50},
            )
            if result.fun < lowest:
                best, lowest = result.x, float(result.fun)
        return best

    def _condition(self) -> None:
        from scipy.linalg import cho_solve, cholesky

        covariance = self._kernel.covariance(self._kernel.compare(self._x, self._x), self._theta)
        covariance += _trend_covariance(self._trends, self._trends)
        covariance[np.diag_indices(len(self._y))] += np.exp(2 * self._theta[-1]) + self._extra + JITTER
        self._factor: Array = cholesky(covariance, lower=True, check_finite=False)
        residuals = self._y - _expected(self._trends)
        self._weights: Array = cho_solve((self._factor, True), residuals, check_finite=False)

    def _inverse(self) -> Array:
        from scipy.linalg import cho_solve

        inverse: Array = cho_solve((self._factor, True), np.eye(len(self._y)), check_finite=False)
        return inverse


def _negative_log_posterior(
    theta: Array,
    kernel: Kernel,
    compared: Comparison,
    y: Array,
    extra: Array,
    centre: Array,
    width: Array,
    constant: Array | float = 0.0,
) -> tuple[float, Array]:
    """Negative log posterior density of the hyperparameters, and its gradient.

    Args:
        extra: variance of each observation beyond the noise, shape (n,).
        constant: part of the covariance that no hyperparameter changes, shape (n, n).
    """
    from scipy.linalg import LinAlgError, cho_solve, cholesky

    covariance, slopes = kernel.slopes(compared, theta)
    noise, offset = np.exp(2 * theta[-1]), (theta - centre) / width
    covariance += constant
    covariance[np.diag_indices(len(y))] += noise + extra + JITTER
    try:
        factor = cholesky(covariance, lower=True, check_finite=False)
    except LinAlgError:
        return 1e25, offset / width
    weights = cho_solve((factor, True), y, check_finite=False)
    outer = cho_solve((factor, True), np.eye(len(y)), check_finite=False) - np.outer(weights, weights)
    value = 0.5 * y @ weights + np.log(np.diag(factor)).sum() + 0.5 * (offset**2).sum()
    gradient = np.array([*(0.5 * np.vdot(outer, slope) for slope in slopes), noise * np.trace(outer)])
    return float(value), gradient + offset / width


def _expected(trends: Array) -> Array:
    """Sum of the trends with the mean of their coefficients, in units of standardised accuracies; shape (rows,)."""
    total: Array = COEFFICIENT[0] * trends.sum(axis=1) / max(trends.shape[1], 1)
    return total


def _coefficient_variance(trends: Array) -> float:
    """Variance of the coefficient of each trend, so that their mean has that of COEFFICIENT."""
    functions: int = max(trends.shape[1], 1)
    return COEFFICIENT[1] * COEFFICIENT[1] / functions


def _trend_covariance(a: Array, b: Array) -> Array:
    """Covariance of two tables of trends by their uncertain coefficients, shape (rows of a, rows of b)."""
    covariance: Array = _coefficient_variance(a) * (a @ b.T)
    return covariance


def _radius(compared: Comparison, part: Sequence[int], lengths: Array) -> Array:
    """sqrt(5) times the distance in length scales over some groups."""
    total: Array = np.zeros_like(compared.products)
    for group, length in zip(part, lengths, strict=True):
        total = total + compared.squares[group] * np.exp(-2 * length)
    radius: Array = np.sqrt(np.maximum(5 * total, 0.0))
    return radius


def _squares(a: Array, b: Array) -> Array:
    squares: Array = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.maximum(squares, 0.0)


def _robust_deviation(y: Array, borrowed: float | None = None) -> float:
    """Standard deviation of the better half around the median, which failed trainings do not widen.

    Args:
        borrowed: as in `_joint_deviation`.
    """
    median = np.median(y)
    upper = y[y >= median] - median
    return max(_joint_deviation(upper, borrowed, 0.0), 1e-9)


def _joint_deviation(y: Array, borrowed: float | None, centre: float | None = None) -> float:
    """Standard deviation around a centre, or the mean, together with BORROWED observations of another deviation."""
    own = float(y.std()) if centre is None else float(np.sqrt(((y - centre) ** 2).mean()))
    if borrowed is None:
        return own
    total = len(y) * own**2 + BORROWED * borrowed**2
    return math.sqrt(total / (len(y) + BORROWED))
