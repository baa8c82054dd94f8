"""ONNX files give what the network gives, for any number of images, and say how pixels are prepared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from search.data.preprocessing import Pixels
from search.export.exporter import export
from search.export.verification import CONVERTED, require_equal
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    BatchNorm,
    Dense,
    Flatten,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.seeds import generator
from search.training.model import build
from tests.export.test_hostile_names import HOSTILE
from tests.support.pictures import pictures
from tests.support.strategies import FUNCTIONS

onnx = pytest.importorskip("onnx")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")


def net(*layers: Layer) -> Architecture:
    return Architecture((9, 8, 3), 3, (*layers, GlobalAveragePool(), Dense(3), Softmax()), "net")


KINDS = {
    "functions": net(*(layer for one in FUNCTIONS for layer in (SeparableConv(6), Activation(one), Gate(one)))),
    "gates and residuals": net(
        SeparableConv(7, 3, dilation=2, depth_multiplier=3),
        BatchNorm(),
        SpatialSeparableConv(8, 5, stride=2),
        Residual((BatchNorm(), Gate("silu"), SeparableConv(8)), (MaxPool(3, 1, "same"),)),
    ),
    "vector": Architecture((4, 5, 1), 3, (Flatten(), Dense(8), BatchNorm(), Gate(), Dense(3), Softmax())),
}


def some_weights(architecture: Architecture) -> list[Any]:
    random = generator(1, "weights")
    own = build(architecture).get_weights()
    return [1.5 * array * random.uniform(0.8, 1.2, array.shape) + random.uniform(0, 0.05, array.shape) for array in own]


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_the_network(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    from search.export import onnx_model

    weights, pixels = some_weights(KINDS[name]), Pixels((0.5,), (0.25,))
    told = {"pixels": json.dumps(pixels.to_dict()), "class_names": json.dumps(["猫", "b"])}
    content = onnx_model.onnx_model(KINDS[name], weights, description="what it takes", properties=told)
    model = build(KINDS[name])
    model.set_weights(weights)
    inputs = Pixels().apply(pictures(KINDS[name].input, 7))
    for some in (inputs, inputs[:1]):
        require_equal(onnx_model.outputs(content, some), np.asarray(model(some, training=False)), CONVERTED)
    assert onnx_model.properties(content) == {"pixels": pixels.to_dict(), "class_names": ["猫", "b"]}
    graph, (given,), (put_out,) = onnx.load_from_string(content), *_ends(content)
    assert (given.name, put_out.name, graph.doc_string) == ("image", "probabilities", "what it takes")
    sizes = [[dim.dim_param or dim.dim_value for dim in end.type.tensor_type.shape.dim] for end in (given, put_out)]
    assert sizes == [["n", *KINDS[name].input], ["n", 3]]
    assert capfd.readouterr() == ("", "")


def _ends(content: bytes) -> tuple[Any, Any]:
    graph = onnx.load_from_string(content).graph
    return graph.input, graph.output


def test_hostile_names_stay_inside_their_metadata(tmp_path: Path) -> None:
    from search.export import onnx_model

    network = Architecture((4, 5, 1), 3, (Flatten(), Dense(3), Softmax()), "".join(HOSTILE))
    classes = [*HOSTILE, "\udce9"]  # the last as a file system gives a name that is no UTF-8
    facts = {"data": {"class_names": classes}}
    options: dict[str, Any] = {"weights": some_weights(network), "facts": facts, "pixels": Pixels(), "recipe": None}
    exported = export(network, tmp_path, formats=["onnx"], **options)
    assert not exported.failed
    content = (tmp_path / "best_model.onnx").read_bytes()
    assert onnx_model.properties(content) == {"pixels": Pixels().to_dict(), "class_names": classes}
    graph = onnx.load_from_string(content)
    assert graph.doc_string.startswith(network.name)
    assert re.fullmatch(r"\w+", graph.graph.name)


def test_inexpressible_layers_are_named(monkeypatch: Any) -> None:
    from search.export import onnx_model

    monkeypatch.setattr(onnx_model, "_Translatable", lambda: keras.layers)
    with pytest.raises(RuntimeError, match=r"(?s)tf2onnx cannot express it .*Erfc.*; it printed: "):
        onnx_model.onnx_model(KINDS["functions"], some_weights(KINDS["functions"]), description="", properties={})
