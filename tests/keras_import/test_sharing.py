"""Shared weights of an import, compared with the real Keras model: parameters and outputs are equal, or there is a problem.

python -m pytest tests/keras_import/test_sharing.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from search.budget.cost import compute_cost
from search.errors import UserError
from search.keras_import.convert import Imported, convert, read_model
from search.keras_import.graph import read_graph
from search.networks.architecture import fingerprint
from search.networks.geometry import flatten, resolve
from search.networks.layers import Activation, ConvLayer, GlobalAveragePool, walk
from search.training.model import build
from tests.support.keras_files import call3, functional

SHAPE = (8, 8, 3)
SAME: dict[str, Any] = {"padding": "same", "use_bias": False}

Body = Callable[[Any], Any]


def model_of(*bodies: Body) -> keras.Model:
    """The bodies in a row, then global pooling and a softmax of three classes."""
    image = x = keras.Input(SHAPE)
    for body in bodies:
        x = body(x)
    return keras.Model(image, layers.Softmax()(layers.GlobalAveragePooling2D()(x)))


def imported(model: keras.Model) -> Imported:
    return convert(read_graph(json.loads(model.to_json())), "net")


def keras_layer(model: Any, origin: str) -> Any:
    """The layer that "Conv2D inner/conv" names."""
    for name in origin.partition(" ")[2].split("/"):
        model = model.get_layer(name)
    return model


def assert_computes_the_same(model: keras.Model) -> Imported:
    """The import has the parameters of the model and, with its weights, its outputs."""
    found = imported(model)
    assert found.problems == ()
    assert found.architecture is not None
    assert compute_cost(found.architecture).params == model.count_params()
    built = build(found.architecture)
    assert built.count_params() == model.count_params()
    for (_, row), origin in zip(flatten(resolve(found.architecture)), found.origins, strict=True):
        if isinstance(row.layer, ConvLayer) and not row.first:
            parts = [keras_layer(model, name).get_weights() for name in origin.split(" and ")]
            built.get_layer(row.name).set_weights([weights for part in parts for weights in part])
    images = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(np.float32)
    assert np.allclose(built(images, training=False), model(images, training=False), atol=1e-5)
    return found


def separable(name: str, *, bias: bool = True) -> Any:
    return layers.SeparableConv2D(3, 3, padding="same", use_bias=bias, name=name)


def shared_names(found: Imported) -> list[str]:
    assert found.architecture is not None
    return [layer.weights for layer in walk(found.architecture.layers) if isinstance(layer, ConvLayer)]


# --- names that are equal, or become so ------------------------------------------------------------------------------


def test_layers_of_one_name_in_two_nested_models_are_two() -> None:
    def nested(name: str) -> keras.Model:
        image, conv = keras.Input((8, 8, 8)), layers.SeparableConv2D(8, 3, padding="same", name="conv")
        return keras.Model(image, conv(conv(image)), name=name)

    model = model_of(layers.Conv2D(8, 1), nested("left"), nested("right"), layers.Conv2D(3, 1))
    assert model.count_params() == 32 + 2 * (72 + 64 + 8) + 27
    assert shared_names(assert_computes_the_same(model)) == ["", "left_conv", "left_conv", "right_conv", "right_conv", ""]


@pytest.mark.parametrize("names", [("a b", "a_b"), ("x" * 60 + "1", "x" * 60 + "2"), ("ä", "ö"), ("a b", "a_b_2")])
def test_names_that_become_equal_stay_apart(names: tuple[str, str]) -> None:
    first, second = (layers.Conv2D(3, 3, padding="same", name=name) for name in names)
    found = assert_computes_the_same(model_of(*(lambda x, conv=conv: conv(conv(x)) for conv in (first, second))))
    one, _, other, _ = shared_names(found)
    assert one != other and max(len(one), len(other)) <= 60


def test_names_with_a_number_do_not_meet_those_that_get_one() -> None:
    convs = [layers.Conv2D(3, 3, padding="same", name=name) for name in ("a b", "a_b", "a_b_2", "a+b")]
    found = assert_computes_the_same(model_of(*(lambda x, conv=conv: conv(conv(x)) for conv in convs)))
    assert len(set(shared_names(found))) == len(convs)


# --- layers made of several -------------------------------------------------------------------------------------------


def test_pairs_that_change_partners_are_a_problem() -> None:
    """Q(B(P(B(Q(A(P(A(x)))))))): four pairs of two depthwise and two 1x1 convolutions."""
    a, b = (layers.DepthwiseConv2D(3, name=name, **SAME) for name in "AB")
    p, q = (layers.Conv2D(3, 1, use_bias=False, name=name) for name in "PQ")
    found = imported(model_of(a, p, a, q, b, p, b, q))
    assert [problem.where for problem in found.problems] == [
        "DepthwiseConv2D A",
        "Conv2D P",
        "DepthwiseConv2D B",
        "Conv2D Q",
    ]
    assert all("called 2 times with the same weights, but in layers that differ" in one.rule for one in found.problems)
    assert all(one.mended for one in found.problems)
    assert found.architecture is not None
    apart = [part for _ in range(4) for part in (layers.DepthwiseConv2D(3, **SAME), layers.Conv2D(3, 1, use_bias=False))]
    expected = imported(model_of(*apart)).architecture
    assert expected is not None and fingerprint(found.architecture) == fingerprint(expected)


def test_pairs_that_stay_together_share_their_weights() -> None:
    a, p = layers.DepthwiseConv2D(3, name="A", **SAME), layers.Conv2D(3, 1, use_bias=False, name="P")
    assert shared_names(assert_computes_the_same(model_of(a, p, layers.ReLU(), a, p))) == ["P", "P"]


def test_a_part_that_is_also_a_layer_of_its_own_is_a_problem() -> None:
    a, p = layers.DepthwiseConv2D(3, name="A", **SAME), layers.Conv2D(3, 1, use_bias=False, name="P")
    (problem,) = imported(model_of(a, p, layers.ReLU(), p)).problems
    assert problem.where == "Conv2D P" and "as DepthwiseConv2D A and Conv2D P (3 filters, 3x3)" in problem.rule


def test_a_convolution_with_zeros_before_one_of_its_calls_is_a_problem() -> None:
    conv = layers.SeparableConv2D(3, 3, name="c")
    found = imported(model_of(layers.ZeroPadding2D(1), conv, conv))
    (problem,) = found.problems
    assert problem.where == "SeparableConv2D c" and "3x3, bias), as" in problem.rule and "valid" in problem.rule


# --- nested models ----------------------------------------------------------------------------------------------------


def test_a_nested_model_that_is_called_twice_shares_its_convolutions() -> None:
    inner = keras.Sequential([keras.Input(SHAPE), separable("conv"), layers.ReLU()], name="inner")
    image = keras.Input(SHAPE)
    outer = keras.Model(image, layers.Add()([inner(image), image]), name="outer")
    assert shared_names(assert_computes_the_same(model_of(inner, inner))) == ["inner_conv"] * 2
    assert shared_names(assert_computes_the_same(model_of(outer, outer))) == ["outer_inner_conv"] * 2
    assert shared_names(imported(model_of(inner))) == [""]


def test_a_nested_model_that_is_called_twice_names_what_cannot_be_shared() -> None:
    inner = keras.Sequential([keras.Input(SHAPE), separable("conv"), layers.BatchNormalization(name="norm")], name="inner")
    problems = imported(model_of(inner, inner)).problems
    assert {(one.where, one.rule) for one in problems} == {
        ("BatchNormalization inner/norm", "called 2 times with the same weights, which only convolutions can share")
    }


@pytest.mark.parametrize("layer", [True, False])
def test_nested_models_that_are_called_often_are_rejected(layer: bool) -> None:
    """Ten calls in each of six models are a million."""
    image = call3("InputLayer", "i", batch_shape=[None, *SHAPE])
    description = functional(image, *([call3("ReLU", "x0", "i")] if layer else []))
    for _ in range(6):
        entry = description | {"name": "m", "inbound_nodes": []}
        for number in range(10):
            source = ["m", number - 1, 0] if number else ["i", 0, 0]
            tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": source}}
            entry["inbound_nodes"].append({"args": [tensor], "kwargs": {}})
        description = functional(image, entry)
        description["config"]["output_layers"] = [["m", 9, 0]]
    with pytest.raises(UserError, match="more than 1,000 "):
        read_graph(description)


def test_weights_shared_across_nested_models_are_reported_as_far_as_the_file_shows(tmp_path: Path) -> None:
    """A .keras file marks the second layer alone, so that the first cannot be known; JSON has no marks, in Keras either."""
    conv = separable("conv")
    sides = []
    for name in ("left", "right"):
        image = keras.Input(SHAPE)
        sides.append(keras.Model(image, conv(image), name=name))
    model = model_of(*sides)
    model.save(tmp_path / "shared.keras")
    (problem,) = read_model(tmp_path / "shared.keras").problems
    assert problem.where == "SeparableConv2D right/conv" and "another nested model" in problem.rule
    assert keras.models.model_from_json(model.to_json()).count_params() == 2 * model.count_params()
    found = imported(model)
    assert found.architecture is not None and compute_cost(found.architecture).params == 2 * model.count_params()


def test_ids_of_shared_objects_are_identities() -> None:
    """As Keras 2 writes them: both layers have the id."""
    description = json.loads(model_of(separable("a", bias=False), separable("b", bias=False)).to_json())
    for entry in description["config"]["layers"][1:3]:
        entry["shared_object_id"] = 7
    assert shared_names(convert(read_graph(description), "net")) == ["a", "a"]


# --- any chain --------------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(st.lists(st.sampled_from(["S", "T", "C", "A", "B", "P", "Q", "relu", "N", "M"]), min_size=1, max_size=9))
def test_any_chain_of_shared_layers_computes_the_same_or_has_a_problem(chain: Iterable[str]) -> None:
    shared: dict[str, Any] = {
        "S": separable("conv 1", bias=False),
        "T": separable("conv_1"),
        "C": layers.Conv2D(3, 3, padding="same", name="conv+1"),
        "A": layers.DepthwiseConv2D(3, name="A", **SAME),
        "B": layers.DepthwiseConv2D(5, name="B", **SAME),
        "P": layers.Conv2D(3, 1, use_bias=False, name="P"),
        "Q": layers.Conv2D(3, 1, use_bias=True, name="Q"),
        "relu": layers.ReLU(),
        "N": keras.Sequential([keras.Input(SHAPE), separable("conv_1")], name="N"),
        "M": keras.Sequential([keras.Input(SHAPE), separable("conv_1"), layers.ReLU()], name="M"),
    }
    model = model_of(*(shared[name] for name in chain))
    if not imported(model).problems:
        assert_computes_the_same(model)


# --- frozen layers, products ------------------------------------------------------------------------------------------


def test_frozen_layers_are_named() -> None:
    frozen, nested = separable("frozen"), keras.Sequential([keras.Input(SHAPE), separable("inner")], name="nested")
    frozen.trainable = nested.trainable = False
    found = imported(model_of(frozen, separable("free"), nested))
    assert found.problems == ()
    (reason,) = found.left_out
    assert reason.startswith("trainable=False")
    assert found.left_out[reason] == ("SeparableConv2D frozen", "SeparableConv2D nested/inner")


def hard_swish_by_hand(x: Any) -> Any:
    return x * keras.ops.relu6(x + 3) / 6


PRODUCTS: dict[str, tuple[Body, str]] = {
    "sigmoid": (lambda x: x * keras.ops.sigmoid(x), "silu"),
    "layers": (lambda x: layers.Multiply()([layers.Activation("sigmoid")(x), x]), "silu"),
    "hard sigmoid": (lambda x: x * keras.ops.hard_sigmoid(x), "hard_silu"),
    "hard swish": (hard_swish_by_hand, "hard_silu"),
    "hard swish of layers": (lambda x: layers.Multiply()([x, layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)]), "hard_silu"),
}


@pytest.mark.parametrize("way", PRODUCTS)
def test_an_activation_that_is_written_as_a_product_is_read_as_one(way: str) -> None:
    body, function = PRODUCTS[way]
    found = assert_computes_the_same(model_of(separable("a"), body, separable("b")))
    assert found.architecture is not None
    assert found.architecture.layers[1] == Activation(function)  # type: ignore[arg-type]
    (remark,) = found.read_as
    assert remark.endswith(f"as {function}")


@pytest.mark.parametrize("body", [lambda x: x * keras.ops.relu6(x + 2) / 6, lambda x: x * keras.ops.relu6(x + 3) / 5])
def test_other_products_are_problems(body: Body) -> None:
    assert imported(model_of(separable("a"), body)).problems


def test_a_mean_over_height_and_width_is_a_global_average_pool() -> None:
    image = keras.Input(SHAPE)
    for axis in ((1, 2), (-2, -3)):
        x = keras.ops.mean(separable("a")(image), axis=axis)
        found = assert_computes_the_same(keras.Model(image, layers.Softmax()(x)))
        assert found.architecture is not None and found.architecture.layers[1] == GlobalAveragePool()


# --- messages ---------------------------------------------------------------------------------------------------------

MESSAGES: dict[str, tuple[Body, str, str, str]] = {
    "a mean over channels": (
        lambda x: layers.Conv2D(3, 1)(keras.ops.mean(x, axis=3, keepdims=True)),
        "Mean",
        "a mean over axis 3 with keepdims, and only one over height and width is known",
        "GlobalAveragePooling2D()",
    ),
    "times two": (
        lambda x: x * 2.0,
        "Multiply",
        "multiplies by 2.0, and no layer here has constants",
        "nothing, or BatchNormalization(), which learns a factor and an offset",
    ),
    "zeros before a pool": (
        lambda x: layers.MaxPooling2D(3, strides=2, name="p")(layers.ZeroPadding2D(1, name="z")(x)),
        "ZeroPadding2D",
        "adds zeros ((1, 1), (1, 1)) before a pool, MaxPooling2D p; only a convolution can take them",
        "padding='same' in MaxPooling2D p, and no ZeroPadding2D z",
    ),
    "zeros before another layer": (
        lambda x: layers.ReLU(name="r")(layers.ZeroPadding2D(1)(x)),
        "ZeroPadding2D",
        "adds zeros ((1, 1), (1, 1)) before ReLU r, not before a convolution with padding='valid'",
        "padding='same' in the convolution",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_problem_has_its_rule_its_value_and_the_nearest_that_works(case: str) -> None:
    body, kind, rule, edit = MESSAGES[case]
    problem = imported(model_of(separable("a"), body)).problems[0]
    assert (problem.where.split(" ")[0], problem.rule, problem.edit) == (kind, rule, edit)


def test_dense_on_a_map_has_its_remedy() -> None:
    model = keras.Sequential([keras.Input(SHAPE), separable("a"), layers.Dense(4, activation="softmax", name="d")])
    (problem,) = imported(model).problems
    assert (problem.where, problem.rule) == (
        "Dense d",
        "needs a vector, and [8, 8, 3] reaches it; put global_average_pool or flatten before",
    )
    assert problem.edit == "GlobalAveragePooling2D() or Flatten() before it, or for each pixel a Conv2D of kernel size 1"
