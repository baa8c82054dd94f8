"""Outputs of one network are told from those of another, however little they vary."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from search.export.verification import require_alike, require_equal
from search.seeds import generator

STEP = 1 / 256


def probabilities(strength: float, n: int = 200, *names: str) -> npt.NDArray[np.float32]:
    scores = strength * generator(0, "scores", *names).standard_normal((n, 10))
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)


def in_steps(outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(np.floor(outputs / STEP) * STEP, np.float32)


@pytest.mark.parametrize("strength", [0.0, 0.001, 0.1, 1.0, 5.0])
def test_rounding_is_no_other_network(strength: float) -> None:
    expected = probabilities(strength)
    noisy = in_steps(expected) + STEP * generator(1, "noise").choice([0, 0, 0, 1], expected.shape)
    agreement = require_alike(noisy, expected, STEP)
    assert agreement == np.mean(noisy.argmax(axis=1) == expected.argmax(axis=1))
    assert agreement > 0.95 or strength < 0.5


@pytest.mark.parametrize("strength", [1.0, 5.0])
@pytest.mark.parametrize("fault", ["other", "rolled", "constant", "late images"])
def test_another_network_is_reported(strength: float, fault: str) -> None:
    expected = probabilities(strength)
    wrong = {
        "other": probabilities(strength, 200, "other"),
        "rolled": np.roll(expected, 1, axis=1),
        "constant": np.full_like(expected, 0.1),
        "late images": np.roll(expected, 1, axis=0),
    }[fault]
    with pytest.raises(ValueError, match="outputs miss"):
        require_alike(in_steps(wrong), expected, STEP)


def test_classes_must_agree_where_the_network_is_sure() -> None:
    expected = np.zeros((40, 10), np.float32)
    expected[np.arange(40), np.arange(40) % 10] = 1
    wrong = expected.copy()
    wrong[:6] = np.roll(expected[:6], 1, axis=1)
    with pytest.raises(ValueError, match="only 85% of the images that the network is sure of get its class"):
        require_alike(wrong, expected, STEP)
    assert require_alike(np.vstack([wrong[4:6], expected[2:]]), expected, STEP) == 0.95


def test_floats_are_equal_or_not() -> None:
    expected = probabilities(1.0)
    require_equal(expected + np.float32(5e-6), expected)
    for wrong in (expected + np.float32(2e-5), expected * np.float32(np.nan)):
        with pytest.raises(ValueError, match="outputs differ by"):
            require_equal(wrong, expected)
    require_equal(expected + np.float32(5e-5), expected, 1e-4)
    for require in (require_equal, lambda found, wanted: require_alike(found, wanted, STEP)):
        with pytest.raises(ValueError, match=r"shape \(200, 9\) instead of \(200, 10\)"):
            require(expected[:, :9], expected)
        with pytest.raises(ValueError, match="outputs"):
            require(expected * np.float32(np.nan), expected)
