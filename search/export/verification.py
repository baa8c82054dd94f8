"""Is it still the same network? What an exported form puts out, beside what the trained network does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from search.seeds import generator

TOLERANCE = 1e-5  # of a probability: what other kernels of the same arithmetic may differ by
CONVERTED = 1e-4  # where a converter has fused and reordered it
MOST_MISSED = 0.5  # of the variance of the outputs, by 8-bit arithmetic; trained nets miss under 0.01, a wrong one over 1
SURE = 0.5  # ahead of the second class: then the class is not for rounding to decide
FEWEST_ALIKE = 0.9  # of the sure ones

Outputs = npt.NDArray[np.float32]  # probabilities (n, classes)


def require_equal(found: Outputs, expected: Outputs, tolerance: float = TOLERANCE) -> None:
    """Raise where two outputs differ by more than float32 arithmetic in another order does.

    Raises:
        ValueError: they do.
    """
    if found.shape != expected.shape:
        raise ValueError(f"outputs have shape {found.shape} instead of {expected.shape}")
    difference = float(np.abs(found - expected).max())
    if not difference <= tolerance:
        raise ValueError(f"outputs differ by {difference:.3g}")


def require_alike(found: Outputs, expected: Outputs, step: float) -> float:
    """The share of images in which both see the same class.

    Nets of which the outputs hardly vary fall under the resolution of 8 bits, and classes that are nearly level change
    places: so errors of two steps count for nothing, the rest is measured by how the outputs vary, and classes must
    agree where the network is sure.

    Args:
        step: between two values of a quantised output.

    Raises:
        ValueError: they are no outputs of one network.
    """
    if found.shape != expected.shape:
        raise ValueError(f"outputs have shape {found.shape} instead of {expected.shape}")
    missed = float(np.square(np.maximum(np.abs(found - expected) - 2 * step, 0)).sum())
    variation = float(np.square(expected - expected.mean(axis=0)).sum())
    if not missed <= MOST_MISSED * variation:
        raise ValueError(f"outputs miss {missed / max(variation, 1e-12):.0%} of how the network's vary from image to image")
    agree = found.argmax(axis=1) == expected.argmax(axis=1)
    first, second = np.partition(expected, -2, axis=1)[:, :-3:-1].T
    sure = first - second > SURE
    if sure.any() and (share := float(agree[sure].mean())) < FEWEST_ALIKE:
        raise ValueError(f"only {share:.0%} of the images that the network is sure of get its class")
    return float(agree.mean())


def sample_images(shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """A few images uint8 (4, height, width, channels): soft gradients under noise."""
    height, width, channels = shape
    random = generator(0, "export")
    slopes = random.uniform(-1, 1, (4, 2, channels))
    down, across = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    soft = down * slopes[:, None, None, 0] + across * slopes[:, None, None, 1]
    return np.clip(128 + 50 * soft + 25 * random.standard_normal((4, *shape)), 0, 255).astype(np.uint8)
