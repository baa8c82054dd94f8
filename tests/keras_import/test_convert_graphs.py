"""Import of models that are no chain, and of unknown layers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import keras
import pytest
from keras import layers

from search.errors import UserError
from search.networks.layers import (
    Activation,
    BatchNorm,
    Dropout,
    Gate,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
)
from tests.support.conversions import CONV, SHAPE, functional, known, of_json, problems, sequential

# --- graphs ----------------------------------------------------------------------------------------------------------


def test_sums_of_branches_are_residuals_also_inside_each_other() -> None:
    def body(x: Any) -> Any:
        x = layers.SeparableConv2D(8, 3)(x)
        y = layers.SeparableConv2D(8, 1)(x)
        y = layers.ReLU()(y + layers.BatchNormalization()(y))
        return layers.Add()([layers.MaxPooling2D(1)(x), y])

    narrow = replace(CONV, kernel=1)
    inner = Residual((), (BatchNorm(),))
    assert known(functional(body)) == (CONV, Residual((MaxPool(1),), (narrow, inner, Activation("relu"))))


def test_a_sum_of_three_is_two_sums() -> None:
    def body(x: Any) -> Any:
        return layers.Add()([x, layers.BatchNormalization()(x), layers.ReLU()(x)])

    assert known(functional(body)) == (Residual((Residual((), (BatchNorm(),)),), (Activation("relu"),)),)


@pytest.mark.parametrize("way", ["slices", "negative", "split", "reversed", "times", "axes"])
def test_gates_are_known_however_they_are_written(way: str) -> None:
    def body(x: Any) -> Any:
        x = layers.SeparableConv2D(8, 3)(x)
        first, second = keras.ops.split(x, 2, axis=-1) if way == "split" else (x[..., :4], x[..., 4:])
        if way == "negative":
            first, second = x[..., :-4], x[..., -4:]
        if way == "axes":
            first, second = x[:, :, :, :4], x[:, :, :, 4:8]
        if way == "reversed":
            first, second = second, first
        opened = layers.Activation("silu")(first)
        return second * opened if way == "times" else layers.Multiply()([opened, second])

    found = functional(body)
    assert known(found) == (CONV, Gate("silu"))
    assert [("as a gate of the first half" in words) for words in found.read_as] == ([True] if way == "reversed" else [])


@pytest.mark.parametrize(
    "slices",
    [
        (slice(0, 4), slice(0, 4)),
        (slice(0, 3), slice(5, 8)),
        (slice(2, 4), slice(4, 6)),
        (slice(0, 2), slice(2, 4)),
        (slice(0, 4), slice(4, 5)),  # one channel, which is repeated
    ],
)
def test_lookalikes_of_a_gate_are_none(slices: tuple[slice, slice]) -> None:
    def body(x: Any) -> Any:
        x = layers.SeparableConv2D(8, 3)(x)
        first, second = (x[..., part] for part in slices)
        return layers.Multiply()([layers.Activation("silu")(first), second])

    assert functional(body).problems


def test_halves_of_unequal_reach_are_no_spatial_convolution() -> None:
    halves = (layers.DepthwiseConv2D((3, 1), use_bias=False, dilation_rate=(2, 1)), layers.SeparableConv2D(8, (1, 3)))
    assert [kind for kind, _, _ in problems(sequential(*halves))] == ["DepthwiseConv2D", "SeparableConv2D"]


def test_uneven_halves_are_reported() -> None:
    def body(x: Any) -> Any:
        x = layers.SeparableConv2D(12, 3)(x)
        return layers.Multiply()([layers.Activation("silu")(x[..., :4]), x[..., 8:]])

    assert problems(functional(body))[0][0] in ("Multiply", "GetItem")


def test_other_layers_used_twice_are_rejected() -> None:
    def body(x: Any) -> Any:
        one = layers.SeparableConv2D(3, 3, padding="same", name="one")(x)
        two = layers.SeparableConv2D(3, 3, padding="same")(layers.Add()([x, one]))
        return layers.Add()([x, one, two])

    with pytest.raises(UserError, match="SeparableConv2D one is used in several places"):
        functional(body)


def test_a_convolution_that_is_called_twice_shares_its_weights() -> None:
    conv = layers.SeparableConv2D(3, 3, padding="same", name="again", use_bias=False)
    pair = layers.DepthwiseConv2D(3, padding="same", name="d", use_bias=False), layers.Conv2D(3, 1, name="p", use_bias=False)
    first, second = known(functional(lambda x: conv(conv(x))))
    assert first == second == SeparableConv(3, weights="again")
    assert known(functional(lambda x: pair[1](pair[0](pair[1](pair[0](x))))))[1] == SeparableConv(3, weights="p")
    (part,) = problems(
        functional(
            lambda x: layers.Conv2D(3, 1)(pair[0](pair[1](pair[0](x)))),
        )
    )[:1]
    assert part[1].startswith(
        "called 2 times with the same weights, but in layers that differ: as DepthwiseConv2D d and Conv2D p ("
    )


def test_other_layers_that_share_weights_are_a_problem_and_those_without_any_may_be_called_again() -> None:
    relu, norm = layers.ReLU(), layers.BatchNormalization(name="norm")
    assert known(functional(lambda x: relu(layers.BatchNormalization()(relu(x))))) == (
        Activation("relu"),
        BatchNorm(),
        Activation("relu"),
    )
    found = problems(functional(lambda x: norm(relu(norm(x)))))
    assert {rule for _, rule, _ in found} == {"called 2 times with the same weights, which only convolutions can share"}


def test_several_inputs_or_outputs_are_rejected() -> None:
    left, right = keras.Input(SHAPE), keras.Input(SHAPE)
    with pytest.raises(UserError, match="2 inputs"):
        of_json(keras.Model([left, right], layers.Add()([left, right])).to_json())
    with pytest.raises(UserError, match="2 outputs"):
        of_json(keras.Model(left, [layers.ReLU()(left), layers.ReLU()(left)]).to_json())


def test_a_depth_that_python_cannot_recurse_to_is_read() -> None:
    layer = {"class_name": "ReLU", "config": {}}
    calls: list[dict[str, Any]] = [{"class_name": "InputLayer", "name": "c0", "config": {"batch_shape": [None, 4, 4, 2]}}]
    for number in range(1, 990):
        calls.append({**layer, "name": f"c{number}", "inbound_nodes": [[[f"c{number - 1}", 0, 0, {}]]]})
    config = {"name": "deep", "layers": calls, "input_layers": [["c0", 0, 0]], "output_layers": [["c989", 0, 0]]}
    found = of_json(json.dumps({"class_name": "Functional", "config": config}))
    ((_, rule, _),) = problems(found)
    assert rule.startswith("needs a vector, and [4, 4, 2] reaches it")


# --- what is not known -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "nearest"),
    [
        (lambda: layers.LeakyReLU(0.1), Activation("relu")),
        (lambda: layers.PReLU(), Activation("relu")),
        (lambda: layers.ReLU(negative_slope=0.1), Activation("relu")),
        (lambda: layers.Activation("mish"), Activation("silu")),
        (lambda: layers.Activation("selu"), Activation("elu")),
        (lambda: layers.SpatialDropout2D(0.2), Dropout(0.2)),
        (lambda: layers.LayerNormalization(), BatchNorm()),
        (lambda: layers.GroupNormalization(1), BatchNorm()),
        (lambda: layers.SeparableConv2D(8, (3, 1)), CONV),
    ],
)
def test_unknown_layers_are_named_with_the_nearest(layer: Any, nearest: Layer) -> None:
    found = sequential(layer())
    assert len(found.problems) == 1 and found.problems[0].mended
    assert found.architecture is not None and found.architecture.layers[0] == nearest


@pytest.mark.parametrize(
    ("layer", "rule"),
    [
        (lambda: layers.Lambda(lambda x: x, output_shape=SHAPE), "code, which is never run"),
        (lambda: layers.UpSampling2D(), "not known here"),
        (lambda: layers.DepthwiseConv2D(3), "known only with a 1x1 Conv2D straight after it"),
        (lambda: layers.BatchNormalization(scale=False), "scale False"),
        (lambda: layers.Conv2D(9, 3, groups=3), "groups 3"),
        (lambda: layers.MaxPooling2D((2, 1)), "pool_size 2x1"),
        (lambda: layers.Dropout(0.5, noise_shape=(None, 1, 1, 3)), "noise_shape [None, 1, 1, 3]"),
        (lambda: layers.Softmax(), "a softmax inside the network"),
        (lambda: layers.BatchNormalization(axis=1), "normalises over axis 1"),
    ],
)
def test_unknown_layers_without_a_nearest_are_named_too(layer: Any, rule: str) -> None:
    assert [found for _, found, _ in problems(sequential(layer()))] == [rule]


def test_problems_come_in_the_order_of_the_model() -> None:
    found = sequential(layers.LeakyReLU(), layers.SeparableConv2D(8, 3, activation="mish"), layers.UpSampling2D())
    assert [one.where.split(" ")[0] for one in found.problems] == ["LeakyReLU", "activation", "UpSampling2D"]


def test_a_mobile_block_is_mended_by_leaving_out_what_parts_it() -> None:
    body = layers.DepthwiseConv2D(3, use_bias=False), layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(8, 1)
    found = sequential(*body)
    assert len(found.problems) == 1 and "BatchNormalization" in found.problems[0].rule and "ReLU" in found.problems[0].rule
    assert found.architecture is not None and found.architecture.layers[:-3] == (CONV,)


@pytest.mark.parametrize("function", ["sigmoid", "tanh"])
def test_an_output_that_is_no_softmax_is_a_problem(function: str) -> None:
    found = sequential(head=(layers.GlobalAveragePooling2D(), layers.Dense(4, activation=function)))
    assert [edit for _, _, edit in problems(found)] == ["softmax, over one unit a class"]


def test_one_output_is_a_problem() -> None:
    found = sequential(head=(layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid")))
    assert [one.edit for one in found.problems] == ["softmax, over one unit a class", "one for each class"]


@pytest.mark.parametrize("layer", [layers.Concatenate, layers.Multiply, layers.Average, layers.Maximum])
def test_other_ways_to_join_branches_are_problems(layer: Any) -> None:
    found = functional(lambda x: layer()([layers.ReLU()(x), x]))
    assert (found.problems[0].where.split(" ")[0], len(found.problems)) == (layer.__name__, 1)


def test_a_model_that_does_not_tell_its_size_is_rejected() -> None:
    with pytest.raises(UserError, match="begin the model with"):
        of_json(keras.Sequential([layers.Flatten(), layers.Dense(2)]).to_json())
    with pytest.raises(UserError, match=r"no fixed size, \[None, None, 3\]"):
        of_json(keras.Sequential([keras.Input((None, None, 3)), layers.GlobalAveragePooling2D()]).to_json())
    with pytest.raises(UserError, match="images"):
        of_json(keras.Sequential([keras.Input((5,)), layers.Dense(2)]).to_json())
