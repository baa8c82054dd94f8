"""Numeric features of a network and its recipe, the same for every kind of space.

They are read from the resolved layers and their costs, so that a new kind of layer or of space needs no code here, and
parameters of a proposal that its network does not use have no effect. The part of a name before the first dot is its group:
the surrogate has one length scale for each.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from itertools import pairwise
from typing import Any

from search.budget.cost import Cost, compute_layer_cost
from search.networks.geometry import flatten
from search.networks.layers import Layer, Residual
from search.training.recipe import Recipe

Features = dict[str, float]

_SIZES = frozenset({"filters", "units", "kind", "weights"})  # of layers; widths are features of their own
_LOGARITHMIC = frozenset({"learning_rate", "batch_size", "weight_decay", "clip_norm"})
_USUAL_RATE = {"sgd": 0.1}  # learning rate of each optimizer, which rates are taken relative to; others: 0.002
_LEAST = 1e-6  # added before a logarithm, so that a weight decay of 0 has one


def network_features(cost: Cost) -> Features:
    """Features of a network from its resolved layers: size, widths by resolution, and settings of layers a convolution.

    Convolutions and dense layers count towards depth and widths, except for the last, which is the classifier.
    """
    rows = [row for _, row in flatten(cost.resolved)]
    sized = [row for row in rows if _has_size(row.layer)]
    weighted = [(row, compute_layer_cost(row).macs) for row in sized]
    body = weighted[:-1] or weighted
    side, depth = max(cost.resolved[0].input[:2]), max(len(body), 1)
    features: Features = {
        "size.params": math.log2(cost.params + 1),
        "size.macs": math.log2(cost.macs + 1),
        "shape.depth": math.log2(depth),
        "shape.receptive_field": math.log2(cost.receptive_field or side),
    }
    levels: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])  # by halvings: layers, their widths, multiply-adds
    widths = []
    for row, macs in body:
        width = row.output[-1]
        widths.append(math.log2(width))
        level = levels[round(math.log2(side / max(row.output[:2]))) if len(row.output) == 3 else -1]
        level[0], level[1], level[2] = level[0] + 1, level[1] + width, level[2] + macs
    for halvings, (count, width, macs) in levels.items():
        features[f"shape.layers_{halvings}"] = count
        features[f"shape.width_{halvings}"] = math.log2(1 + width)
        features[f"size.macs_{halvings}"] = math.log2(1 + macs)
    if widths:
        mean = sum(widths) / len(widths)
        features["shape.first"], features["shape.last"] = widths[0], widths[-1]
        features["shape.narrowest"], features["shape.widest"], features["shape.mean"] = min(widths), max(widths), mean
        features["shape.spread"] = math.sqrt(sum((width - mean) ** 2 for width in widths) / len(widths))
    layers = [row.layer for row in rows]
    for layer, count in Counter(layers).items():
        for name, value in _settings(layer):
            features[name] = features.get(name, 0.0) + count * value / depth
    kinds = [layer.kind for layer in layers]
    for (before, kind), count in Counter(pairwise(kinds)).items():
        features[f"layers.{before}>{kind}"] = count / depth
    return features


def _has_size(layer: Layer) -> bool:
    """True for convolutions and dense layers, which have a number of outputs of their own."""
    return hasattr(layer, "filters") or hasattr(layer, "units")


@lru_cache(maxsize=65_536)  # the same layers return in thousands of candidates
def _settings(layer: Layer) -> tuple[tuple[str, float], ...]:
    """Settings of a layer as (name of the feature, value): numbers as they are, names as 1."""
    if isinstance(layer, Residual):
        return ()
    settings = []
    for entry in fields(layer):
        value = getattr(layer, entry.name)
        if entry.name in _SIZES or value is None:
            continue
        if isinstance(value, str):
            settings.append((f"layers.{entry.name}={value}", 1.0))
        else:
            settings.append((f"layers.{entry.name}", float(value)))
    return tuple(settings)


def recipe_features(recipe: Recipe) -> Features:
    """Features of a recipe: its numbers, learning rate, batch size and decay as logarithms, and names as 0 or 1."""
    features: Features = {}
    for name, value in _leaves(recipe.model_dump()):
        if isinstance(value, str):
            features[f"recipe.{name}={value}"] = 1.0
        elif isinstance(value, int | float):
            is_logarithmic = name.rpartition(".")[2] in _LOGARITHMIC
            features[f"recipe.{name}"] = math.log2(value + _LEAST) if is_logarithmic else float(value)
    features["recipe.learning_rate"] -= math.log2(_USUAL_RATE.get(recipe.optimizer, 0.002))
    return features


def _leaves(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            leaves += _leaves(value, f"{prefix}{key}.")
        else:
            leaves.append((prefix + key, value))
    return leaves
