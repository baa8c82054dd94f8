"""Imports: a model that is built here comes back as the same network, and what cannot be said is named.

python -m pytest tests/keras_import/test_convert.py
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest
from hypothesis import given, settings
from keras import layers

from search.budget.cost import compute_cost
from search.errors import UserError
from search.export.keras_source import keras_source
from search.keras_import.convert import Imported, convert, read_model
from search.keras_import.graph import read_graph
from search.networks.architecture import Architecture, fingerprint
from search.networks.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
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
from search.training.model import build
from tests.support.strategies import REFERENCES, architectures, net, reference

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


# --- there and back --------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(architectures())
def test_a_network_that_is_built_comes_back(network: Architecture) -> None:
    found = of_model(build(network))
    assert found.problems == () and not found.softmax_added and not found.left_out
    assert found.architecture is not None
    assert fingerprint(found.architecture) == fingerprint(network)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_that_is_saved_comes_back(name: str, tmp_path: Path) -> None:
    network, path = reference(name), tmp_path / "saved.keras"
    build(network).save(path)
    found = read_model(path)
    assert found.architecture is not None
    assert fingerprint(found.architecture) == fingerprint(network)
    assert found.architecture.name == network.name.replace("-", "_")  # as Keras takes it
    assert len(found.origins) == len(network.layers)


def test_what_export_writes_as_source_comes_back() -> None:
    network = net(
        SeparableConv(8),
        Residual((SeparableConv(16), Gate("silu"), Residual((SpatialSeparableConv(8, 5),))), (SeparableConv(8, 1),)),
        Gate("gelu"),
    )
    made: dict[str, Any] = {}
    exec(keras_source(network), made)
    found = of_json(made["build_model"]().to_json())
    assert found.architecture is not None
    assert fingerprint(found.architecture) == fingerprint(network)


# --- ways in which people write the same -----------------------------------------------------------------------------


def test_activations_inside_layers_are_layers_of_their_own() -> None:
    found = sequential(
        layers.SeparableConv2D(8, 3, activation="relu"), layers.Conv2D(4, 1, activation=keras.activations.silu)
    )
    assert known(found) == (CONV, Activation("relu"), Conv(4, 1, padding="valid", use_bias=True), Activation("silu"))


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (lambda: layers.ReLU(), "relu"),
        (lambda: layers.ReLU(6), "relu6"),
        (lambda: layers.ReLU(max_value=6.0), "relu6"),
        (lambda: layers.ELU(), "elu"),
        (lambda: layers.Activation("swish"), "silu"),
        (lambda: layers.Activation("hard_swish"), "hard_silu"),
        (lambda: layers.Activation(keras.activations.gelu), "gelu"),
        (lambda: layers.Activation(layers.ReLU(6)), "relu6"),
    ],
)
def test_functions_are_known_by_all_their_names(layer: Any, function: str) -> None:
    assert known(sequential(layer())) == (Activation(function),)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", ["relu", "relu6", "silu", "elu", "tanh", "sigmoid", "hard_silu"])
def test_operations_are_activations(function: str) -> None:
    assert known(functional(getattr(keras.ops, function))) == (Activation(function),)  # type: ignore[arg-type]


def test_linear_functions_and_identities_are_nothing() -> None:
    assert known(sequential(layers.Activation("linear"), layers.Identity(), layers.SeparableConv2D(8, 3))) == (CONV,)


def test_a_depthwise_and_a_1x1_convolution_are_one_separable_convolution() -> None:
    for options in ({"strides": 2, "padding": "same"}, {"dilation_rate": 2}, {"depth_multiplier": 3}):
        found = sequential(layers.DepthwiseConv2D(3, use_bias=False, **options), layers.Conv2D(8, 1))
        (layer,) = known(found)
        assert isinstance(layer, SeparableConv) and layer.filters == 8 and layer.use_bias
        (words,) = found.read_as
        assert "as one separable_conv" in words


def test_halves_of_a_spatial_convolution_are_one_layer() -> None:
    halves = (
        layers.DepthwiseConv2D((5, 1), use_bias=False, padding="same"),
        layers.SeparableConv2D(8, (1, 5), padding="same"),
    )
    three = (
        layers.DepthwiseConv2D((5, 1), use_bias=False, padding="same"),
        layers.DepthwiseConv2D((1, 5), use_bias=False, padding="same"),
        layers.Conv2D(8, 1),
    )
    for parts in (halves, three):
        assert known(sequential(*parts)) == (SpatialSeparableConv(8, 5, use_bias=True),)


def test_zeros_around_are_the_padding_that_they_equal() -> None:
    assert known(sequential(layers.ZeroPadding2D(1), layers.SeparableConv2D(8, 3))) == (replace(CONV, padding="same"),)
    uneven = layers.ZeroPadding2D(((0, 1), (0, 1))), layers.SeparableConv2D(8, 3, strides=2)
    assert known(sequential(*uneven)) == (replace(CONV, padding="same", stride=2),)
    wrong = sequential(layers.ZeroPadding2D(1), layers.SeparableConv2D(8, 3, strides=2))
    ((_, rule, edit),) = problems(wrong)
    assert "((1, 1), (1, 1))" in rule and "((0, 1), (0, 1))" in rule and edit.startswith("padding='same'")
    pool = sequential(layers.ZeroPadding2D(1), layers.MaxPooling2D())
    assert pool.architecture is not None and pool.architecture.layers[0] == MaxPool(padding="same")
    assert [kind for kind, _, _ in problems(pool)] == ["ZeroPadding2D"]


def test_preparation_in_front_is_left_out_and_told() -> None:
    front = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])
    found = sequential(front, layers.Rescaling(1 / 255), layers.Normalization(), layers.SeparableConv2D(8, 3))
    assert known(found) == (CONV,)
    assert sorted(len(names) for names in found.left_out.values()) == [2, 2]
    assert known(functional(lambda x: layers.SeparableConv2D(8, 3)(x / 255.0 - 0.5))) == (CONV,)


def test_resizing_in_front_gives_the_size_of_the_images() -> None:
    found = sequential(layers.Resizing(12, 10), layers.SeparableConv2D(8, 3))
    assert found.architecture is not None and found.architecture.input == (12, 10, 3)


def test_preparation_inside_the_network_is_a_problem() -> None:
    found = sequential(layers.SeparableConv2D(8, 3), layers.RandomFlip())
    assert problems(found)[0][:2] == ("RandomFlip", "prepares images, and may stand only before all else")


def test_models_inside_a_model_are_laid_out_flat() -> None:
    inner = keras.Sequential([layers.SeparableConv2D(8, 3), layers.ReLU()])
    image = keras.Input((14, 14, 8))
    sums = keras.Model(image, layers.Add()([image, layers.SeparableConv2D(8, 3, padding="same")(image)]))
    same = replace(CONV, padding="same")
    assert known(sequential(inner, sums)) == (CONV, Activation("relu"), Residual((), (same,)))
    assert known(functional(lambda x: sums(inner(x)))) == (CONV, Activation("relu"), Residual((), (same,)))


def test_scores_get_a_softmax_and_a_softmax_before_flatten_moves_behind_it() -> None:
    found = sequential(head=(layers.GlobalAveragePooling2D(), layers.Dense(4)))
    assert known(found) == () and found.softmax_added
    convolved = layers.SeparableConv2D(4, 16), layers.Softmax(), layers.Flatten()
    moved = sequential(head=convolved)
    assert moved.problems == () and moved.architecture is not None and not moved.softmax_added
    assert moved.architecture.layers[1:] == (Flatten(), Softmax())
    wide = sequential(head=(layers.SeparableConv2D(4, 15), layers.Softmax(), layers.GlobalAveragePooling2D()))
    assert [rule for _, rule, _ in problems(wide)] == ["comes after the softmax"]


def test_regularizers_are_left_out_and_told() -> None:
    found = sequential(layers.SeparableConv2D(8, 3, depthwise_regularizer="l2"), layers.Dropout(0.5, seed=3))
    assert known(found) == (CONV, Dropout(0.5))
    assert list(found.left_out) == ["depthwise_regularizer: weight decay belongs to the recipe"]


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
def test_what_only_looks_like_a_gate_is_none(slices: tuple[slice, slice]) -> None:
    def body(x: Any) -> Any:
        x = layers.SeparableConv2D(8, 3)(x)
        first, second = (x[..., part] for part in slices)
        return layers.Multiply()([layers.Activation("silu")(first), second])

    assert functional(body).problems


def test_halves_of_unequal_reach_are_no_spatial_convolution() -> None:
    halves = (layers.DepthwiseConv2D((3, 1), use_bias=False, dilation_rate=(2, 1)), layers.SeparableConv2D(8, (1, 3)))
    assert [kind for kind, _, _ in problems(sequential(*halves))] == ["DepthwiseConv2D", "SeparableConv2D"]


def test_uneven_halves_are_told() -> None:
    def body(x: Any) -> Any:
        x = layers.SeparableConv2D(12, 3)(x)
        return layers.Multiply()([layers.Activation("silu")(x[..., :4]), x[..., 8:]])

    assert problems(functional(body))[0][0] in ("Multiply", "GetItem")


def test_what_is_used_twice_elsewhere_is_refused() -> None:
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


def test_several_inputs_or_outputs_are_refused() -> None:
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
def test_what_is_not_known_is_named_with_the_nearest(layer: Any, nearest: Layer) -> None:
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
def test_what_has_no_nearest_is_named_too(layer: Any, rule: str) -> None:
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


def test_a_model_that_does_not_tell_its_size_is_refused() -> None:
    with pytest.raises(UserError, match="begin the model with"):
        of_json(keras.Sequential([layers.Flatten(), layers.Dense(2)]).to_json())
    with pytest.raises(UserError, match=r"no fixed size, \[None, None, 3\]"):
        of_json(keras.Sequential([keras.Input((None, None, 3)), layers.GlobalAveragePooling2D()]).to_json())
    with pytest.raises(UserError, match="images"):
        of_json(keras.Sequential([keras.Input((5,)), layers.Dense(2)]).to_json())
