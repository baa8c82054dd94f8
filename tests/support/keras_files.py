"""Descriptions of Keras models for tests, as Keras 2 and Keras 3 write them, without Keras."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from search.networks.architecture import Architecture
from search.networks.layers import Activation, BatchNorm, Dropout, GlobalAveragePool, MaxPool, SeparableConv, Softmax

SHAPE = [None, 16, 16, 3]


def layer(kind: str, name: str = "", **config: Any) -> dict[str, Any]:
    """A layer of a Sequential model."""
    return {"class_name": kind, "config": {"name": name or kind.lower(), "trainable": True, **config}}


def call2(kind: str, name: str, *inputs: str, **config: Any) -> dict[str, Any]:
    """A layer of a Functional model of Keras 2."""
    nodes = [[[source, 0, 0, {}] for source in inputs]] if inputs else []
    return layer(kind, name, **config) | {"name": name, "inbound_nodes": nodes}


def call3(kind: str, name: str, *inputs: str, arguments: tuple[Any, ...] = (), **config: Any) -> dict[str, Any]:
    """A layer of a Functional model of Keras 3."""
    tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [source, 0, 0]}} for source in inputs]
    given: list[Any] = [*tensors[:1], *arguments] if len(tensors) == 1 else [tensors]
    nodes = [{"args": given, "kwargs": {}}] if inputs else []
    return layer(kind, name, **config) | {"name": name, "inbound_nodes": nodes, "module": "keras.layers"}


def slice3(start: int | None, stop: int | None) -> list[dict[str, Any]]:
    """`[..., start:stop]` as Keras 3 writes it."""
    part = {"class_name": "__slice__", "config": {"start": start, "stop": stop, "step": None}}
    return [{"class_name": "__ellipsis__", "config": {}}, part]


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "mine", "layers": list(layers)}, "keras_version": "2.11.0"}


def functional(*calls: dict[str, Any]) -> dict[str, Any]:
    """The first call is the image, the last the output."""
    ends = [[calls[end]["name"], 0, 0] for end in (0, -1)]
    config = {"name": "mine", "layers": list(calls), "input_layers": [ends[0]], "output_layers": [ends[1]]}
    return {"class_name": "Functional", "config": config}


def residual3() -> dict[str, Any]:
    """A convolution, a sum with a gate in its branch, a head; as Keras 3 writes it."""
    return functional(
        call3("InputLayer", "image", batch_shape=SHAPE),
        call3("SeparableConv2D", "conv", "image", filters=4, kernel_size=[3, 3], padding="same", use_bias=False),
        call3("SeparableConv2D", "wide", "conv", filters=8, kernel_size=[3, 3], padding="same", use_bias=False),
        call3("GetItem", "first", "wide", arguments=(slice3(None, 4),)),
        call3("GetItem", "second", "wide", arguments=(slice3(4, None),)),
        call3("Activation", "opened", "first", activation="silu"),
        call3("Multiply", "gate", "opened", "second"),
        call3("Add", "sum", "gate", "conv"),
        call3("GlobalAveragePooling2D", "pool", "sum", keepdims=False),
        call3("Dense", "scores", "pool", units=4, activation="softmax", use_bias=True),
    )


def residual2() -> dict[str, Any]:
    """The same as Keras 2 writes it, with operations."""
    sliced = call2("SlicingOpLambda", "first", function="__operators__.getitem")
    other = call2("SlicingOpLambda", "second", function="__operators__.getitem")
    spec = [{"class_name": "__ellipsis__"}, {"start": None, "stop": 4, "step": None}]
    sliced["inbound_nodes"] = [["wide", 0, 0, {"slice_spec": {"class_name": "__tuple__", "items": spec}}]]
    other["inbound_nodes"] = [["wide", 0, 0, {"slice_spec": [spec[0], {"start": 4, "stop": None, "step": None}]}]]
    product = call2("TFOpLambda", "gate", function="math.multiply")
    product["inbound_nodes"] = [["opened", 0, 0, {"y": ["second", 0, 0], "name": None}]]
    total = call2("TFOpLambda", "sum", function="__operators__.add")
    total["inbound_nodes"] = [["gate", 0, 0, {"y": ["conv", 0, 0], "name": None}]]
    return functional(
        call2("InputLayer", "image", batch_input_shape=SHAPE, dtype="float32", sparse=False),
        call2("SeparableConv2D", "conv", "image", filters=4, kernel_size=[3, 3], padding="same", use_bias=False, groups=1),
        call2("SeparableConv2D", "wide", "conv", filters=8, kernel_size=[3, 3], padding="same", use_bias=False, groups=1),
        sliced,
        other,
        call2("Activation", "opened", "first", activation="silu"),
        product,
        total,
        call2("GlobalAveragePooling2D", "pool", "sum", data_format="channels_last", keepdims=False),
        call2("Dense", "scores", "pool", units=4, activation="softmax", use_bias=True),
    )


def chain2() -> dict[str, Any]:
    """A plain chain as Keras 2 writes it: the size of the images in its first layer, the axis in a list."""
    return sequential(
        layer("Conv2D", "conv", batch_input_shape=SHAPE, filters=8, kernel_size=[3, 3], padding="valid", activation="relu"),
        layer("BatchNormalization", "norm", axis=[3], momentum=0.9, epsilon=1e-5, center=True, scale=True),
        layer("MaxPooling2D", "pool", pool_size=[2, 2], strides=[2, 2], padding="valid", data_format="channels_last"),
        layer("LeakyReLU", "leaky", alpha=0.1),
        layer("Dropout", "drop", rate=0.25, noise_shape=None, seed=None),
        layer("Flatten", "flat", data_format="channels_last"),
        layer("Dense", "scores", units=4, activation="softmax", use_bias=True),
    )


def chain_of(network: Architecture) -> dict[str, Any]:
    """A network of the space as Keras 2 writes it."""
    rows = [layer("InputLayer", "image", batch_input_shape=[None, *network.input])]
    for number, one in enumerate(network.layers):
        match one:
            case SeparableConv():
                options = {"filters": one.filters, "kernel_size": [one.kernel] * 2, "strides": [one.stride] * 2}
                options |= {"padding": one.padding, "use_bias": one.use_bias}
                rows.append(layer("SeparableConv2D", f"l{number}", **options))
            case BatchNorm():
                rows.append(layer("BatchNormalization", f"l{number}", momentum=one.momentum, epsilon=one.epsilon))
            case Activation():
                rows.append(layer("Activation", f"l{number}", activation=one.function))
            case Dropout():
                rows.append(layer("Dropout", f"l{number}", rate=one.rate))
            case MaxPool():
                rows.append(layer("MaxPooling2D", f"l{number}", pool_size=[one.size] * 2))
            case GlobalAveragePool():
                rows.append(layer("GlobalAveragePooling2D", f"l{number}"))
            case Softmax():
                rows.append(layer("Softmax", f"l{number}", axis=-1))
            case _:
                raise AssertionError(f"{one} is not written in the form of Keras 2 here")
    return sequential(*rows)


def zipped(path: Path, description: Any, **more: bytes) -> Path:
    """A .keras file of the description, and of other members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", description if isinstance(description, bytes) else json.dumps(description))
        for name, content in more.items():
            archive.writestr(name, content)
    return path
