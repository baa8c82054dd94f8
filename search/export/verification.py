"""Comparison of the outputs of an exported file with those of the trained network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from search.seeds import generator

TOLERANCE = 1e-5  # of a probability: the difference that other kernels of the same arithmetic may make
CONVERTED = 1e-4  # the same where a converter has fused and reordered operations
MOST_LOST = 0.5  # share of the outputs' variance lost in int8; trained networks lose under 0.01, another network over 1
SURE = 0.5  # lead in probability over the second class from which rounding cannot change the class
FEWEST_ALIKE = 0.9  # share of the images with such a lead that must get the same class

Outputs = npt.NDArray[np.float32]  # probabilities (n, classes)


def require_equal(outputs: Outputs, expected: Outputs, tolerance: float = TOLERANCE) -> None:
    """Raise where two outputs differ by more than float32 arithmetic in another order does.

    Raises:
        ValueError: they differ by more, or in shape.
    """
    if outputs.shape != expected.shape:
        raise ValueError(f"outputs have shape {outputs.shape} instead of {expected.shape}")
    difference = float(np.abs(outputs - expected).max())
    if not difference <= tolerance:
        raise ValueError(f"outputs differ by {difference:.3g}")


def require_alike(outputs: Outputs, expected: Outputs, step: float) -> float:
    """Share of images that get the same class; raises where the outputs cannot be those of one network.

    Outputs that hardly vary are below the resolution of int8, and classes of nearly equal probability change places.
    Therefore errors of up to two steps are ignored, larger ones are compared with the variance of the outputs, and classes
    must agree only on images on which the network is sure.

    Args:
        step: between two values of a quantised output.

    Raises:
        ValueError: they are not outputs of one network.
    """
    if outputs.shape != expected.shape:
        raise ValueError(f"outputs have shape {outputs.shape} instead of {expected.shape}")
    lost = float(np.square(np.maximum(np.abs(outputs - expected) - 2 * step, 0)).sum())
    variation = float(np.square(expected - expected.mean(axis=0)).sum())
    if not lost <= MOST_LOST * variation:
        raise ValueError(f"outputs miss {lost / max(variation, 1e-12):.0%} of how the network's vary from image to image")
    agree = outputs.argmax(axis=1) == expected.argmax(axis=1)
    first, second = np.partition(expected, -2, axis=1)[:, :-3:-1].T
    sure = first - second > SURE
    if sure.any() and (share := float(agree[sure].mean())) < FEWEST_ALIKE:
        raise ValueError(f"only {share:.0%} of the images that the network is sure of get its class")
    return float(agree.mean())


def sample_images(shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Sample images uint8 (4, height, width, channels): gradients with noise."""
    height, width, channels = shape
    random = generator(0, "export")
    slopes = random.uniform(-1, 1, (4, 2, channels))
    down, across = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    soft = down * slopes[:, None, None, 0] + across * slopes[:, None, None, 1]
    return np.clip(128 + 50 * soft + 25 * random.standard_normal((4, *shape)), 0, 255).astype(np.uint8)
