"""Shared by the tests of convert and convert_graphs."""

from __future__ import annotations

import json
from typing import Any

import keras
from keras import layers

from search.budget.cost import compute_cost
from search.keras_import.convert import Imported, convert
from search.keras_import.graph import read_graph
from search.networks.layers import (
    Dense,
    GlobalAveragePool,
    Layer,
    SeparableConv,
    Softmax,
)

SHAPE = (16, 16, 3)
HEAD: tuple[Layer, ...] = (GlobalAveragePool(), Dense(4), Softmax())
CONV = SeparableConv(8, 3, padding="valid", use_bias=True)


def of_json(text: str) -> Imported:
    return convert(read_graph(json.loads(text)), "net")


def of_model(model: keras.Model) -> Imported:
    """The import of a model; where all is known, it has the parameters that Keras counts."""
    found = of_json(model.to_json())
    if not found.problems:
        assert found.architecture is not None
        preparing = sum(layer.count_params() for layer in model.layers if isinstance(layer, layers.Normalization))
        assert compute_cost(found.architecture).params == model.count_params() - preparing
    return found


def sequential(*body: Any, head: tuple[Any, ...] | None = None) -> Imported:
    usual = (layers.GlobalAveragePooling2D(), layers.Dense(4, activation="softmax"))
    return of_model(keras.Sequential([keras.Input(SHAPE), *body, *(usual if head is None else head)]))


def functional(body: Any) -> Imported:
    """The model of `body(image)` under the usual head."""
    image = keras.Input(SHAPE)
    scores = layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(body(image)))
    return of_model(keras.Model(image, scores))


def known(found: Imported) -> tuple[Layer, ...]:
    """The layers of a model of which all is known, without the usual head."""
    assert found.problems == ()
    assert found.architecture is not None
    assert found.architecture.layers[-3:] == HEAD
    return found.architecture.layers[:-3]


def problems(found: Imported) -> list[tuple[str, str, str]]:
    return [(one.where.split(" ")[0], one.rule, one.edit) for one in found.problems]
