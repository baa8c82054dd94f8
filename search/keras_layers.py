"""A layer of Keras read as layers of `search.layers`, or the rule that it breaks with the nearest that does not.

Convolutions and paddings stay as they are written until their neighbours are known (`search.keras_import`): two of them may
be one layer here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from search.archives import reason
from search.geometry import Resolved
from search.keras_graph import Call
from search.layers import (
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
    Padding,
    Softmax,
)

Check = Callable[[Resolved], tuple[str, str] | None]  # what is wrong with a layer in its place, and the edit
Pair = tuple[int, int]

KNOWN = (
    "SeparableConv2D, Conv2D, DepthwiseConv2D with a 1x1 Conv2D after it, BatchNormalization, Activation, ReLU, Dropout, "
    "MaxPooling2D, AveragePooling2D, GlobalAveragePooling2D, Flatten, Dense, Softmax, Add, gates"
)
FUNCTIONS: tuple[Function, ...] = get_args(Function)

_UNKNOWN = "not known here"


@dataclass(frozen=True, slots=True)
class Problem:
    """What these networks cannot hold, and the smallest edit that mends it."""

    where: str
    rule: str
    edit: str
    mended: bool = True  # reading went on as if the edit were made; else the layer was passed over


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A layer that was read; those inside a residual are steps themselves."""

    layer: Layer
    origin: str  # "Conv2D conv2d_3"
    branch: tuple[Step, ...] = ()
    shortcut: tuple[Step, ...] = ()
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution as Keras has it."""

    origin: str
    kind: Literal["depthwise", "separable", "plain"]
    filters: int  # 0 where depthwise
    kernel: Pair
    stride: Pair
    padding: Padding
    dilation: Pair
    depth_multiplier: int
    use_bias: bool
    around: tuple[Pair, Pair] | None = None  # zeros that a layer before it adds: (top, bottom), (left, right)


@dataclass(frozen=True, slots=True)
class Zeros:
    """A ZeroPadding2D."""

    origin: str
    around: tuple[Pair, Pair]


Item = Step | Convolution | Zeros


@dataclass(slots=True)
class Findings:
    """What is noticed while a model is read."""

    problems: list[Problem] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # by reason, the layers
    read_as: list[str] = field(default_factory=list)

    def leave_out(self, why: str, where: str) -> None:
        self.left_out.setdefault(why, []).append(where)


class Unfit(ValueError):
    """An option that these networks do not have: the rule, and the edit."""

    def __init__(self, rule: str, edit: str) -> None:
        super().__init__(rule)
        self.rule, self.edit = rule, edit


def read_layer(call: Call, findings: Findings, *, is_front: bool) -> list[Item]:
    """The layers that a call of one input comes to; none where it is left out, the nearest where it breaks a rule.

    Args:
        is_front: whether nothing but preparation of the image comes before.
    """
    kind, options = kind_of(call), _Options(call.config)
    if call.times > 1 and kind in _WEIGHTED:
        rule = f"called {call.times} times with the same weights, and networks here share none"
        findings.problems.append(Problem(call.words, rule, "a layer of its own for each call"))
    if is_front and is_preparation(call):
        findings.leave_out(_PREPARES.get(kind, _RECIPE_PIXELS), call.words)
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


def kind_of(call: Call) -> str:
    """Keras' class name, with other names for the same turned into one."""
    if call.kind in ("TFOpLambda", "SlicingOpLambda"):  # Keras 2
        function = call.config.get("function")
        return _OPERATIONS.get(function, call.kind) if isinstance(function, str) else call.kind
    return _SAME.get(call.kind, call.kind)


def is_preparation(call: Call) -> bool:
    """Whether the call does what the recipe does to images, where it stands before all else."""
    kind = kind_of(call)
    return kind in _PREPARES or (kind in _ARITHMETIC and len(call.inputs) == 1)


def resized(call: Call) -> Pair | None:
    """(height, width) of the images that a preparation makes, None where it leaves their size."""
    if kind_of(call) not in ("Resizing", "CenterCrop", "RandomCrop"):
        return None
    height, width = (call.config.get(side) for side in ("height", "width"))
    return (height, width) if type(height) is int and type(width) is int and height > 0 and width > 0 else None


def function_of(call: Call, findings: Findings) -> Function | None:
    """The function of a call that is an activation and nothing else."""
    found = read_layer(call, findings, is_front=False) if kind_of(call) in _ACTIVATIONS else []
    match found:
        case [Step(Activation(function))]:
            return function
        case _:
            return None


def _read(kind: str, call: Call, options: _Options, findings: Findings) -> list[Item]:
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
        case "Dense":
            dense = Dense(options.whole("units"), options.flag("use_bias", True))
            return [
                Step(dense, call.words),
                *_activation(options.value("activation"), f"activation of {call.words}", findings),
            ]
        case "Identity" | "InputLayer":
            return []
        case _ if kind in _ACTIVATIONS:
            return _activation_layer(kind, call.words, options, findings)
        case "SpatialDropout2D" | "GaussianDropout" | "AlphaDropout":
            findings.problems.append(Problem(call.words, _UNKNOWN, "Dropout of the same rate"))
            return [Step(Dropout(options.number("rate")), call.words)]
        case _ if kind in _NEAREST:
            edit, layer = _NEAREST[kind]
            findings.problems.append(Problem(call.words, _UNKNOWN, edit))
            return [Step(layer, call.words)] if layer else []
        case _ if kind in _PREPARES:
            raise Unfit("prepares images, and may stand only before all else", "nothing here, or the same in front")
        case "Lambda":
            raise Unfit("code, which is never run", "a layer that is known")
        case _:
            raise Unfit(_UNKNOWN, "a layer that is known")


# --- layers ----------------------------------------------------------------------------------------------------------


def _convolution(kind: str, call: Call, options: _Options, findings: Findings) -> list[Item]:
    options.expect("data_format", ("channels_last", None), "data_format='channels_last'")
    options.expect("groups", (1, None), "SeparableConv2D, or groups=1")
    found = Convolution(
        call.words,
        {"Conv2D": "plain", "SeparableConv2D": "separable", "DepthwiseConv2D": "depthwise"}[kind],  # type: ignore[arg-type]
        0 if kind == "DepthwiseConv2D" else options.whole("filters"),
        options.pair("kernel_size"),
        options.pair("strides", (1, 1)),
        options.padding(),
        options.pair("dilation_rate", (1, 1)),
        1 if kind == "Conv2D" else options.whole("depth_multiplier", 1),
        options.flag("use_bias", True),
    )
    return [found, *_activation(options.value("activation"), f"activation of {call.words}", findings)]


def _batch_norm(call: Call, options: _Options) -> Step:
    axis = options.value("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    for key, edit in (("center", "center=True"), ("scale", "scale=True")):
        options.expect(key, (True, None), edit)
    options.expect("renorm", (False, None), "renorm=False")
    layer = BatchNorm(options.number("momentum", 0.99), options.number("epsilon", 1e-3))
    return Step(layer, call.words, check=_on_last(axis, "normalises over axis"))


def _pool(kind: str, options: _Options) -> Layer:
    options.expect("data_format", ("channels_last", None), "data_format='channels_last'")
    size = options.square("pool_size", (2, 2))
    stride = None if options.value("strides") is None else options.square("strides")
    return (MaxPool if kind == "MaxPooling2D" else AveragePool)(size, None if stride == size else stride, options.padding())


def _activation_layer(kind: str, where: str, options: _Options, findings: Findings) -> list[Item]:
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
                findings.problems.append(Problem(where, f"alpha {_shown(options.value('alpha'))}", "alpha=1"))
            return _activation("elu", where, findings)
        case "Softmax":
            return [Step(Softmax(), where, check=_on_last(options.value("axis", -1), "taken over axis"))]
        case "Gelu" if options.value("approximate", True) is not False:
            findings.read_as.append(f"{where}, an approximation, as gelu")
            return _activation("gelu", where, findings)
        case _:
            return _activation(_ACTIVATIONS[kind], where, findings)


def _activation(value: Any, where: str, findings: Findings) -> list[Item]:
    """The activation that a name or a written object stands for."""
    if isinstance(value, dict):  # {"class_name": "function", "config": "relu"}, or a layer
        kind, config = value.get("class_name"), value.get("config")
        if isinstance(kind, str) and kind in _ACTIVATIONS and isinstance(config, dict):
            return _activation_layer(kind, where, _Options(config), findings)
        value = config if isinstance(config, str) else kind
    name = value.rsplit(".", 1)[-1].rsplit(">", 1)[-1] if isinstance(value, str) else value
    name = _OTHER_NAMES.get(name, name) if isinstance(name, str) else name
    if name in (None, "linear"):
        return []
    if name == "softmax":
        return [Step(Softmax(), where)]
    if name not in FUNCTIONS:
        nearest: Function = _NEAREST_FUNCTION.get(name, "relu") if isinstance(name, str) else "relu"
        rule = f"the function {_shown(value)} is not known"
        findings.problems.append(Problem(where, rule, f"{nearest} (known: {', '.join(FUNCTIONS)})"))
        name = nearest
    return [Step(Activation(cast(Function, name)), where)]


def _on_last(axis: Any, words: str) -> Check:
    def check(row: Resolved) -> tuple[str, str] | None:
        is_last = type(axis) is int and axis in (-1, len(row.output))
        return None if is_last else (f"{words} {_shown(axis)}", "axis=-1, the channels")

    return check


# --- options ---------------------------------------------------------------------------------------------------------


class _Options:
    """The options of a layer, whose types nobody has checked."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def value(self, key: str, default: Any = None) -> Any:
        found = self._config.get(key, default)
        if isinstance(found, dict) and isinstance(found.get("items"), list):  # {"class_name": "__tuple__", "items": [...]}
            return found["items"]
        return found

    def expect(self, key: str, allowed: tuple[Any, ...], edit: str) -> None:
        if not any(self.value(key) is one or self.value(key) == one for one in allowed):
            raise Unfit(f"{key} {_shown(self.value(key))}", edit)

    def whole(self, key: str, default: int | None = None) -> int:
        found = self.value(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or found != found // 1 or abs(found) > 2**31:
            raise Unfit(f"{key} {_shown(found)}", "a whole number")
        return int(found)

    def number(self, key: str, default: float | None = None) -> float:
        found = self.value(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or abs(found) > 2**31:
            raise Unfit(f"{key} {_shown(found)}", "a number")
        return float(found)

    def flag(self, key: str, default: bool) -> bool:
        found = self.value(key, default)
        if not isinstance(found, bool):
            raise Unfit(f"{key} {_shown(found)}", "true or false")
        return found

    def pair(self, key: str, default: Pair | None = None) -> Pair:
        found = self.value(key, default)
        sides = [found, found] if isinstance(found, int | float) else found
        if not isinstance(sides, list | tuple) or len(sides) != 2:
            raise Unfit(f"{key} {_shown(found)}", "two whole numbers")
        height, width = (_Options({key: side}).whole(key) for side in sides)
        return height, width

    def square(self, key: str, default: Pair | None = None) -> int:
        height, width = self.pair(key, default)
        if height != width:
            raise Unfit(f"{key} {height}x{width}", f"{max(height, width)}x{max(height, width)}, as windows are square")
        return height

    def padding(self) -> Padding:
        found = self.value("padding", "valid")
        if found not in ("same", "valid"):
            raise Unfit(f"padding {_shown(found)}", "same or valid")
        return cast(Padding, found)

    def around(self) -> tuple[Pair, Pair]:
        self.expect("data_format", ("channels_last", None), "data_format='channels_last'")
        found = self.value("padding", 1)
        sides = found if isinstance(found, list | tuple) and len(found) == 2 else [found, found]
        top_bottom, left_right = (_Options({"padding": side}).pair("padding") for side in sides)
        return top_bottom, left_right

    def regularizers(self) -> list[str]:
        ends = ("_regularizer", "_constraint")
        return [key for key, value in self._config.items() if isinstance(key, str) and key.endswith(ends) and value]


def _shown(value: Any) -> str:
    return reason(ValueError(repr(value)))[:60]


# --- names -----------------------------------------------------------------------------------------------------------

_WEIGHTED = ("Conv2D", "SeparableConv2D", "DepthwiseConv2D", "BatchNormalization", "Dense")
_SAME = {
    "Convolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
    "DepthwiseConvolution2D": "DepthwiseConv2D",
    "SyncBatchNormalization": "BatchNormalization",
    "BatchNormalizationV1": "BatchNormalization",
    "MaxPool2D": "MaxPooling2D",
    "AvgPool2D": "AveragePooling2D",
    "GlobalAvgPool2D": "GlobalAveragePooling2D",
    "GlobalMaxPool2D": "GlobalMaxPooling2D",
    "TrueDivide": "Divide",
}
_OPERATIONS = {
    "__operators__.getitem": "GetItem",
    "__operators__.add": "Add",
    "math.add": "Add",
    "math.multiply": "Multiply",
    "__operators__.mul": "Multiply",
    "math.truediv": "Divide",
    "__operators__.truediv": "Divide",
    "math.subtract": "Subtract",
    "split": "Split",
    "nn.relu": "Relu",
    "nn.relu6": "Relu6",
    "nn.silu": "Silu",
    "nn.elu": "Elu",
    "nn.tanh": "Tanh",
    "math.tanh": "Tanh",
    "math.sigmoid": "Sigmoid",
    "nn.sigmoid": "Sigmoid",
    "nn.softmax": "Softmax",
}
# layers and operations that are activations, with the function of those that have no options
_ACTIVATIONS = dict.fromkeys(("Activation", "ReLU", "ELU", "Softmax", "Gelu"), "") | {
    "Relu": "relu",
    "Relu6": "relu6",
    "Silu": "silu",
    "Swish": "silu",
    "Elu": "elu",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "HardSilu": "hard_silu",
    "HardSwish": "hard_silu",
    "HardSigmoid": "hard_sigmoid",
    "LeakyReLU": "leaky_relu",
    "LeakyRelu": "leaky_relu",
    "PReLU": "prelu",
    "ThresholdedReLU": "thresholded_relu",
    "Selu": "selu",
    "Softplus": "softplus",
    "Mish": "mish",
}
_OTHER_NAMES = {"swish": "silu", "hard_swish": "hard_silu"}
_NEAREST_FUNCTION: dict[str, Function] = {
    "selu": "elu",
    "celu": "elu",
    "mish": "silu",
    "hard_sigmoid": "sigmoid",
    "hard_tanh": "tanh",
    "softsign": "tanh",
    "exponential": "elu",
}
_NEAREST: dict[str, tuple[str, Layer | None]] = {
    **dict.fromkeys(
        ("LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization"),
        ("BatchNormalization()", BatchNorm()),
    ),
    "GlobalMaxPooling2D": ("GlobalAveragePooling2D()", GlobalAveragePool()),
    "ActivityRegularization": ("nothing", None),
    "GaussianNoise": ("nothing", None),
}
_RECIPE_PIXELS = "images are prepared by the recipe, which divides by 255 and may normalise"
_RECIPE_AUGMENT = "images are varied by the recipe, see augment under [recipe]"
_PREPARES = {
    **dict.fromkeys(("Rescaling", "Normalization", "Cast", "Resizing", "CenterCrop"), _RECIPE_PIXELS),
    **dict.fromkeys(
        (
            *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomCrop", "RandomContrast"),
            *("RandomBrightness", "RandomHue", "RandomSaturation", "RandomShear", "RandomHeight", "RandomWidth"),
            *("RandomErasing", "RandomGrayscale", "RandomInvert", "RandomPosterization", "RandomSharpness", "AugMix"),
            *("RandomColorJitter", "RandomColorDegeneration", "RandomGaussianBlur", "RandomElasticTransform"),
            *("RandomPerspective", "Solarization", "AutoContrast", "Equalization", "RandAugment", "MixUp", "CutMix"),
        ),
        _RECIPE_AUGMENT,
    ),
}
_ARITHMETIC = ("Add", "Subtract", "Multiply", "Divide")
