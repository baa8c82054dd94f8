"""Seeds of named streams from one root seed: the only source of random numbers of a study."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(root: int, *names: str | int) -> int:
    """A seed of 31 bits for the stream of this name, the same on every machine."""
    text = "/".join([str(root), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def generator(root: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the stream of this name."""
    return np.random.default_rng(derive(root, *names))
