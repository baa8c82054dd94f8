"""Keras layers read one by one as layers of `search.networks.layers`.

A layer that has no equal there is recorded as a problem, with the nearest that has. Convolutions and paddings keep Keras'
options until their neighbours are known (`search.keras_import.fusion`): two of them may be one layer.
"""

from __future__ import annotations

from typing import Any, cast

from search.keras_import.graph import Call
from search.keras_import.names import (
    ACTIVATIONS,
    ARITHMETIC,
    FUNCTIONS,
    NEAREST,
    NEAREST_FUNCTION,
    OTHER_NAMES,
    PREPARES,
    RECIPE_PIXELS,
    SHARED_NEVER,
    WITH_WEIGHTS,
    is_preparation,
    kind_of,
)
from search.keras_import.options import Options, Unfit, shown
from search.keras_import.steps import Check, Convolution, Findings, Item, Problem, Step, Zeros
from search.networks.geometry import Resolved
from search.networks.layers import (
    Activation,
    ArchitectureError,
    AveragePool,
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    Function,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Softmax,
)

_UNKNOWN = "not known here"  # the first rule of a report lists the layers that are known


def read_layer(call: Call, findings: Findings, *, is_front: bool) -> list[Item]:
    """The layers that a call with one input is read as: none where it is left out, the nearest where it breaks a rule.

    Args:
        is_front: only preparation of the image comes before the call.
    """
    kind, options = kind_of(call), Options(call.config)
    if call.is_frozen and kind in WITH_WEIGHTS:
        findings.leave_out("trainable=False: a study trains every layer", call.words)
    if call.is_shared_outside and kind in WITH_WEIGHTS:
        rule = "has the same weights as a layer of another nested model, which the file does not name"
        findings.problems.append(Problem(call.words, rule, "one nested model that is called for both"))
    if call.times > 1 and kind in SHARED_NEVER:
        rule = f"called {call.times} times with the same weights, which only convolutions can share"
        findings.problems.append(Problem(call.words, rule, "a layer of its own for each call"))
    if is_front and is_preparation(call):
        findings.leave_out(PREPARES.get(kind, RECIPE_PIXELS), call.words)
        return []
    for key in options.regularizers():
        findings.leave_out(f"{key}: weight decay belongs to the recipe", call.words)
    try:
        return _read(kind, call, options, findings)
    except Unfit as error:
        findings.problems.append(Problem(call.words, error.rule, error.edit, mended=False))
    except ArchitectureError as error:  # a size or rate that no layer can have
        findings.problems.append(Problem(call.words, str(error), "a value that Keras takes too", mended=False))
    return []


def function_of(call: Call, findings: Findings) -> Function | None:
    """The function of a call that is a single activation; None of other calls."""
    items = read_layer(call, findings, is_front=False) if kind_of(call) in ACTIVATIONS else []
    match items:
        case [Step(Activation(function))]:
            return function
        case _:
            return None


def _read(kind: str, call: Call, options: Options, findings: Findings) -> list[Item]:
    match kind:
        case "Conv2D" | "SeparableConv2D" | "DepthwiseConv2D":
            return _convolution(kind, call, options, findings)
        case "ZeroPadding2D":
            return [Zeros(call.words, options.around())]
        case "BatchNormalization":
            return [_batch_norm(call, options)]
        case "Dropout":
            options.expect("noise_shape", (None,), "leave noise_shape out")
            return [Step(Dropout(options.number("rate")), call.words)]
        case "MaxPooling2D" | "AveragePooling2D":
            return [Step(_pool(kind, options), call.words)]
        case "GlobalAveragePooling2D":
            options.expect("data_format", ("channels_last", None), "channels_last")
            options.expect("keepdims", (False, None), "keepdims=False, with Dense for the 1x1 convolutions after it")
            return [Step(GlobalAveragePool(), call.words)]
        case "Flatten":
            return [Step(Flatten(), call.words)]
        case "Reshape" if isinstance(shape := options.value("target_shape"), list) and len(shape) == 1:
            return [Step(Flatten(), call.words)]
        case "Mean":
            _check_mean(options, call.words, findings)
            return [Step(GlobalAveragePool(), call.words)]
        case "Dense":
            dense = Dense(options.whole("units"), options.flag("use_bias", True))
            return [
                Step(dense, call.words),
                *_activation(options.value("activation"), f"activation of {call.words}", findings),
            ]
        case "Identity" | "InputLayer":
            return []
        case _ if kind in ACTIVATIONS:
            return _activation_layer(kind, call.words, options, findings)
        case "SpatialDropout2D" | "GaussianDropout" | "AlphaDropout":
            findings.problems.append(Problem(call.words, _UNKNOWN, "Dropout of the same rate"))
            return [Step(Dropout(options.number("rate")), call.words)]
        case _ if kind in NEAREST:
            edit, layer = NEAREST[kind]
            findings.problems.append(Problem(call.words, _UNKNOWN, edit))
            return [Step(layer, call.words)] if layer else []
        case _ if kind in PREPARES:
            raise Unfit("prepares images, and may stand only before all else", "nothing here, or the same in front")
        case "Lambda":
            raise Unfit("code, which is never run", "a layer that is known")
        case _ if kind in ARITHMETIC:
            sign, edit = ARITHMETIC[kind], "nothing, or BatchNormalization(), which learns a factor and an offset"
            value = shown(call.arguments[0]) if call.arguments else "a constant"
            findings.problems.append(Problem(call.words, f"{sign} {value}, and no layer here has constants", edit))
            return []
        case _:
            raise Unfit(_UNKNOWN, "a layer that is known")


# --- layers ----------------------------------------------------------------------------------------------------------


def _convolution(kind: str, call: Call, options: Options, findings: Findings) -> list[Item]:
    options.expect("data_format", ("channels_last", None), "data_format='channels_last'")
    options.expect("groups", (1, None), "SeparableConv2D, or groups=1")
    conv = Convolution(
        call.words,
        {"Conv2D": "plain", "SeparableConv2D": "separable", "DepthwiseConv2D": "depthwise"}[kind],  # type: ignore[arg-type]
        0 if kind == "DepthwiseConv2D" else options.whole("filters"),
        options.pair("kernel_size"),
        options.pair("strides", (1, 1)),
        options.padding(),
        options.pair("dilation_rate", (1, 1)),
        1 if kind == "Conv2D" else options.whole("depth_multiplier", 1),
        options.flag("use_bias", True),
        call.layer,
        call.times,
    )
    return [conv, *_activation(options.value("activation"), f"activation of {call.words}", findings)]


def _batch_norm(call: Call, options: Options) -> Step:
    axis = options.value("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    for key, edit in (("center", "center=True"), ("scale", "scale=True")):
        options.expect(key, (True, None), edit)
    options.expect("renorm", (False, None), "renorm=False")
    layer = BatchNorm(options.number("momentum", 0.99), options.number("epsilon", 1e-3))
    return Step(layer, call.words, check=_on_last(axis, "normalises over axis"))


def _pool(kind: str, options: Options) -> Layer:
    options.expect("data_format", ("channels_last", None), "data_format='channels_last'")
    size = options.square("pool_size", (2, 2))
    stride = None if options.value("strides") is None else options.square("strides")
    return (MaxPool if kind == "MaxPooling2D" else AveragePool)(size, None if stride == size else stride, options.padding())


def _activation_layer(kind: str, where: str, options: Options, findings: Findings) -> list[Item]:
    match kind:
        case "Activation":
            return _activation(options.value("activation"), where, findings)
        case "ReLU":
            top, slope, threshold = (options.value(key) for key in ("max_value", "negative_slope", "threshold"))
            if top not in (None, 6) or slope or threshold:
                findings.problems.append(Problem(where, "a ReLU of its own kind", "ReLU() or ReLU(6)"))
            return _activation("relu6" if top == 6 else "relu", where, findings)
        case "ELU":
            if options.value("alpha", 1) != 1:
                findings.problems.append(Problem(where, f"alpha {shown(options.value('alpha'))}", "alpha=1"))
            return _activation("elu", where, findings)
        case "Softmax":
            return [Step(Softmax(), where, check=_on_last(options.value("axis", -1), "taken over axis"))]
        case "Gelu" if options.value("approximate", True) is not False:
            findings.read_as.append(f"{where}, an approximation, as gelu")
            return _activation("gelu", where, findings)
        case _:
            return _activation(ACTIVATIONS[kind], where, findings)


def _activation(value: Any, where: str, findings: Findings) -> list[Item]:
    """The activation of an `activation` option: a name, or a serialised object; none if linear."""
    if isinstance(value, dict):  # {"class_name": "function", "config": "relu"}, or a layer
        kind, config = value.get("class_name"), value.get("config")
        if isinstance(kind, str) and kind in ACTIVATIONS and isinstance(config, dict):
            return _activation_layer(kind, where, Options(config), findings)
        value = config if isinstance(config, str) else kind
    name = value.rsplit(".", 1)[-1].rsplit(">", 1)[-1] if isinstance(value, str) else value
    name = OTHER_NAMES.get(name, name) if isinstance(name, str) else name
    if name in (None, "linear"):
        return []
    if name == "softmax":
        return [Step(Softmax(), where)]
    if name not in FUNCTIONS:
        nearest: Function = NEAREST_FUNCTION.get(name, "relu") if isinstance(name, str) else "relu"
        rule = f"the function {shown(value)} is not known"
        findings.problems.append(Problem(where, rule, f"{nearest} (known: {', '.join(FUNCTIONS)})"))
        name = nearest
    return [Step(Activation(cast(Function, name)), where)]


def _check_mean(options: Options, where: str, findings: Findings) -> None:
    """Record a mean that is not taken over height and width alone, as a global average pool is."""
    axes = options.value("axis")
    given = sorted(axis % 4 for axis in axes) if isinstance(axes, list) and all(type(axis) is int for axis in axes) else None
    if given != [1, 2] or options.value("keepdims", False) is not False:
        kept = " with keepdims" if options.value("keepdims") else ""
        rule = f"a mean over axis {shown(axes)}{kept}, and only one over height and width is known"
        findings.problems.append(Problem(where, rule, "GlobalAveragePooling2D()"))


def _on_last(axis: Any, words: str) -> Check:
    """A check that the axis is that of the channels."""

    def check(row: Resolved) -> tuple[str, str] | None:
        is_last = type(axis) is int and axis in (-1, len(row.output))
        return None if is_last else (f"{words} {shown(axis)}", "axis=-1, the channels")

    return check
