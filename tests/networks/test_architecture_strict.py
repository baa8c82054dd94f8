"""Records of layers take nothing but what they name."""

from __future__ import annotations

import re

import pytest

from search.errors import UserError
from search.networks.architecture import DEEPEST, Architecture, from_json
from search.networks.layers import (
    LARGEST,
    ArchitectureError,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
    walk,
)

# --- strictness ------------------------------------------------------------------------------------------------------


def _text(layer: str = "", *, top: str = "", **changed: str) -> str:
    layers = f'[{layer}{"," if layer else ""}{{"kind": "global_average_pool"}}, {{"kind": "softmax"}}]'
    entries = {"input": "[8, 8, 3]", "classes": "3", "layers": layers} | changed
    return "{" + ", ".join(f'"{key}": {value}' for key, value in entries.items()) + (f", {top}" if top else "") + "}"


def _sep(entries: str) -> str:
    return _text('{"kind": "separable_conv", ' + entries + "}")


def _nested(depth: int, inner: str = '{"kind": "dropout", "rate": 0.1}') -> str:
    for _ in range(depth):
        inner = '{"kind": "residual", "branch": [' + inner + "]}"
    return _text(inner)


BAD: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "JSON"),
    "no JSON": ("layers = 3", "JSON"),
    "cut short": (_text()[:-1], "JSON"),
    "no object": ("[]", "object"),
    "null": ("null", "object"),
    "invalid UTF-8": (b'{"name": "\xff"}', "JSON"),
    "lone surrogate": ('{"name": "\\ud800"}', "JSON"),
    "10,000 brackets": ("[" * 10_000, "recursion"),
    "10,000 brackets for layers": ('{"layers":' + "[" * 10_000, "recursion"),
    "10,000 residuals": (_nested(10_000), "recursion"),
    "9 residuals": (_nested(DEEPEST + 1), f"nest {DEEPEST + 1} deep"),
    "90 residuals": (_nested(90), "nest 90 deep"),
    "9 residuals in the shortcut": (_nested(DEEPEST + 1).replace('"branch"', '"branch": [], "shortcut"'), "nest 9 deep"),
    "integer of 5,000 digits": (_sep('"filters": ' + "9" * 5000), "number"),
    "integer of 4,000 digits": (_sep('"filters": ' + "9" * 4000), "filters"),
    "no input": ('{"classes": 3, "layers": [{"kind": "softmax"}]}', "input"),
    "no classes": ('{"input": [8, 8, 3], "layers": [{"kind": "softmax"}]}', "classes"),
    "no layers": ('{"input": [8, 8, 3], "classes": 3}', "layers"),
    "empty layers": (_text(layers="[]"), "softmax"),
    "no softmax": (_text(layers='[{"kind": "flatten"}]'), "softmax"),
    "softmax before the end": (_text(layers='[{"kind": "softmax"}, {"kind": "flatten"}]'), "softmax"),
    "unknown key": (_text(top='"layer": []'), "layer: unknown key"),
    "unknown key in a layer": (_sep('"filters": 4, "filtres": 4'), "filtres: unknown key"),
    "unknown key with a line break": (_sep('"filters": 4, "fil\\ntres": 4'), "unknown key"),
    "unknown key on top with a line break": (_text(top='"a\\nb": 1'), "unknown key"),
    "unknown key in a branch": (_nested(2, '{"kind": "flatten", "rate": 0}'), "rate: unknown key"),
    "unknown kind": (_text('{"kind": "separable_konv"}'), "separable_konv"),
    "unknown kind with a line break": (_text('{"kind": "a\\nb"}'), "kind"),
    "no kind": (_text('{"filters": 4}'), "kind"),
    "kind is a number": (_text('{"kind": 3}'), "kind"),
    "layer is a number": (_text("3"), "layers.0"),
    "layers is an object": (_text(layers="{}"), "layers"),
    "two sizes": (_text(input="[8, 8]"), "input"),
    "four sizes": (_text(input="[8, 8, 3, 3]"), "input"),
    "input of 0": (_text(input="[8, 8, 0]"), "input"),
    "input of -1": (_text(input="[-1, 8, 3]"), "input"),
    "input too large": (_text(input=f"[8, {LARGEST + 1}, 3]"), "input"),
    "input of fractions": (_text(input="[8.0, 8, 3]"), "input"),
    "input of bools": (_text(input="[true, 8, 3]"), "input"),
    "classes of 0": (_text(classes="0"), "classes"),
    "classes is a bool": (_text(classes="true"), "classes"),
    "name is a number": (_text(name="3"), "name"),
    "no filters": (_text('{"kind": "separable_conv"}'), "filters"),
    "filters 0": (_sep('"filters": 0'), "filters is 0"),
    "filters negative": (_sep('"filters": -4'), "filters is -4"),
    "filters too many": (_sep(f'"filters": {LARGEST + 1}'), "filters"),
    "filters a float": (_sep('"filters": 4.0'), "filters"),
    "filters a string": (_sep('"filters": "4"'), "filters"),
    "filters a bool": (_sep('"filters": true'), "filters"),
    "filters null": (_sep('"filters": null'), "filters"),
    "filters NaN": (_sep('"filters": NaN'), "filters"),
    "kernel 0": (_sep('"filters": 4, "kernel": 0'), "kernel is 0"),
    "kernel a list": (_sep('"filters": 4, "kernel": [3, 3]'), "kernel"),
    "stride 0": (_sep('"filters": 4, "stride": 0'), "stride is 0"),
    "dilation 0": (_sep('"filters": 4, "dilation": 0'), "dilation is 0"),
    "multiplier 0": (_sep('"filters": 4, "depth_multiplier": 0'), "depth_multiplier is 0"),
    "padding": (_sep('"filters": 4, "padding": "full"'), "padding"),
    "bias a number": (_sep('"filters": 4, "use_bias": 1'), "use_bias"),
    "stride with dilation": (_sep('"filters": 4, "stride": 2, "dilation": 2'), "stride 2 with dilation 2"),
    "conv stride with dilation": (_text('{"kind": "conv", "filters": 4, "stride": 2, "dilation": 2}'), "dilation 2"),
    "conv filters 0": (_text('{"kind": "conv", "filters": 0}'), "filters is 0"),
    "spatial stride with dilation": (
        _text('{"kind": "spatial_separable_conv", "filters": 4, "stride": 3, "dilation": 2}'),
        "stride 3 with dilation 2",
    ),
    "weights with a space": (_sep('"filters": 4, "weights": "a b"'), "weights is 'a b'"),
    "weights with a line break": (_sep('"filters": 4, "weights": "a\\n"'), "weights is"),
    "weights too long": (_sep('"filters": 4, "weights": "' + "x" * 1000 + '"'), "weights is"),
    "weights a number": (_text('{"kind": "conv", "filters": 4, "weights": 1}'), "weights"),
    "spatial kernel 0": (_text('{"kind": "spatial_separable_conv", "filters": 4, "kernel": 0}'), "kernel is 0"),
    "spatial multiplier": (
        _text('{"kind": "spatial_separable_conv", "filters": 4, "depth_multiplier": 2}'),
        "depth_multiplier",
    ),
    "momentum 1": (_text('{"kind": "batch_norm", "momentum": 1.0}'), "momentum"),
    "momentum negative": (_text('{"kind": "batch_norm", "momentum": -0.1}'), "momentum"),
    "momentum NaN": (_text('{"kind": "batch_norm", "momentum": NaN}'), "momentum"),
    "momentum a bool": (_text('{"kind": "batch_norm", "momentum": false}'), "momentum"),
    "epsilon 0": (_text('{"kind": "batch_norm", "epsilon": 0.0}'), "epsilon"),
    "epsilon infinite": (_text('{"kind": "batch_norm", "epsilon": Infinity}'), "epsilon"),
    "rate 1": (_text('{"kind": "dropout", "rate": 1.0}'), "rate"),
    "rate negative": (_text('{"kind": "dropout", "rate": -0.1}'), "rate"),
    "rate NaN": (_text('{"kind": "dropout", "rate": NaN}'), "rate"),
    "rate infinite": (_text('{"kind": "dropout", "rate": 1e999}'), "rate"),
    "no rate": (_text('{"kind": "dropout"}'), "rate"),
    "function": (_text('{"kind": "activation", "function": "softmax"}'), "function"),
    "function a list": (_text('{"kind": "activation", "function": ["relu"]}'), "function"),
    "gate function": (_text('{"kind": "gate", "function": "rel"}'), "function"),
    "pool size 0": (_text('{"kind": "max_pool", "size": 0}'), "size is 0"),
    "pool stride 0": (_text('{"kind": "max_pool", "stride": 0}'), "stride is 0"),
    "average pool size": (_text('{"kind": "average_pool", "size": -1}'), "size is -1"),
    "average pool stride": (_text('{"kind": "average_pool", "stride": 0}'), "stride is 0"),
    "average pool padding": (_text('{"kind": "average_pool", "padding": "none"}'), "padding"),
    "units 0": (_text('{"kind": "dense", "units": 0}'), "units is 0"),
    "dense bias": (_text('{"kind": "dense", "units": 2, "use_bias": "no"}'), "use_bias"),
    "branch missing": (_text('{"kind": "residual"}'), "branch"),
    "branch a layer": (_text('{"kind": "residual", "branch": {"kind": "flatten"}}'), "branch"),
    "branch with a fault": (_nested(3, '{"kind": "dropout", "rate": 2.0}'), "rate is 2.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_fault_is_reported_in_one_line(case: str) -> None:
    text, told = BAD[case]
    with pytest.raises(UserError) as caught:
        from_json(text)
    message = str(caught.value)
    assert message.startswith("architecture: ")
    assert told in message
    assert len(message.splitlines()) == 1


def test_a_line_of_a_fault_is_short() -> None:
    for text in (
        _sep('"filters": ' + "9" * 4000),
        _text('{"kind": "' + "x" * 100_000 + '"}'),
        _sep(f'"{"x" * 100_000}": 3'),
    ):
        with pytest.raises(UserError) as caught:
            from_json(text)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (_sep('"filtres": 4'), "filters"),
        (_sep('"filters": 4, "dillation": 2'), "dilation"),
        (_text(top='"clases": 3'), "classes"),
    ],
)
def test_a_misspelt_key_gets_a_suggestion(text: str, meant: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"did you mean {meant!r}?")):
        from_json(text)


def test_the_deepest_residual_is_read() -> None:
    assert from_json(_nested(DEEPEST)).layers[0].kind == "residual"


def test_records_are_valid_from_birth() -> None:
    for make, rule in {
        "filters": lambda: SeparableConv(0),
        "kernel": lambda: Conv(1, 0),
        "dilation 2": lambda: SpatialSeparableConv(1, 3, 2, dilation=2),
        "momentum": lambda: BatchNorm(1.0),
        "epsilon": lambda: BatchNorm(epsilon=float("nan")),
        "rate": lambda: Dropout(float("nan")),
        "size": lambda: MaxPool(0),
        "stride": lambda: AveragePool(2, 0),
        "units": lambda: Dense(0),
        "softmax": lambda: Architecture((1, 1, 1), 1, (Flatten(),)),
        "input": lambda: Architecture((0, 1, 1), 1, (Softmax(),)),
    }.items():
        with pytest.raises(ArchitectureError, match=make):
            rule()


def test_every_layer_inside_a_residual_is_walked_before_its_sum() -> None:
    inner = Residual((Conv(2),), (Conv(3),))
    outer = Residual((Conv(1), inner), (Conv(4),))
    assert list(walk((outer, Flatten()))) == [Conv(1), Conv(2), Conv(3), inner, Conv(4), outer, Flatten()]
