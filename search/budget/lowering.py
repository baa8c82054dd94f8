"""Operators and tensors of the int8 form of a network, with no model built and nothing converted.

The rules come from converted networks of every kind of layer (TensorFlow 2.21, as `export` does it: full int8, batch 1): a
separable convolution becomes its two halves; batch norm folds into a convolution or dense layer right before it that nothing
else reads; behind such a layer and a ReLU its factor goes into the layer and an addition stays (where training made
factors negative, also a multiplication by their signs, unknown before training); anywhere else (after another activation, a
pool or a sum) it is a 1x1 depthwise convolution, on a vector a multiplication and an addition (see
`search.export.quantization`); ReLU and ReLU6 fuse into what precedes them, SiLU is two operators; dropout vanishes.
Operators stand in the order of the file, the branch of a residual before its shortcut.

`search.budget.footprint` computes sizes from it.
"""

from __future__ import annotations

import math
from typing import NamedTuple, assert_never

from search.networks.geometry import Resolved, Shape, first_half_positions
from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Function,
    Gate,
    GlobalAveragePool,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)

_FUSED: tuple[Function, ...] = ("relu", "relu6")
_CODES: dict[Function, tuple[str, ...]] = {
    "relu": ("RELU",),
    "relu6": ("RELU6",),
    "silu": ("LOGISTIC", "MUL"),
    "gelu": ("GELU",),
    "elu": ("DEQUANTIZE", "ELU", "QUANTIZE"),  # there is no int8 form: two float32 maps between
    "tanh": ("TANH",),
    "sigmoid": ("LOGISTIC",),
    "hard_silu": ("HARD_SWISH",),
}
_GELU_NAME = 49  # letters in the names of the five operations that it replaces, each behind the name of the layer
_PREFIX = len("net_1/")  # begins the name of every tensor: `search.export.tflite.NAME`
_LITERAL = len("arith.constant12")  # letters in the name of a constant that the converter adds
_NONE = -1


class Constant(NamedTuple):
    """A tensor stored in the file."""

    bytes: int
    scales: int  # quantisation parameters: one per channel, one in all, or none
    name: int  # letters
    content: str = ""  # identifies the bytes where other constants may equal them; equal ones are stored once
    once: bool = False  # True if all operators read equal contents as one tensor


class Operator(NamedTuple):
    """One operator, with the numbers of the computed tensors that it reads and of the one that it writes."""

    code: str
    inputs: tuple[int, ...]
    output: int
    channels: int = 0  # quantised with a scale each, in convolutions and dense layers; else 0


class Lowered:
    """A network as a sequence of int8 operators.

    Attributes:
        operators: in the order of the file.
        sizes: bytes of each computed tensor; number 0 is the image.
        names: length of the name of each computed tensor.
        floats: numbers of the computed tensors that are float32.
        constants: stored tensors.
        unfolded: names of the batch norms that remain as an operator.
    """

    def __init__(self, image: Shape) -> None:
        self.operators: list[Operator] = []
        self.sizes = [math.prod(image)]
        self.names = [len("image")]
        self.floats: set[int] = set()
        self.constants: list[Constant] = []
        self.unfolded: list[str] = []
        self._once: set[str] = set()  # contents of the constants with `once` so far
        self._weights: list[Constant] = []  # kernel and bias of the last operator, while a batch norm may go into them
        self._folds = self._fuses = _NONE  # the tensor whose operator may still take a batch norm, a ReLU
        self._scales = _NONE  # a tensor whose operator has taken a ReLU, and may still take a batch norm's factor
        self._shared = False  # True if other operators use that operator's weights too


def lower(resolved: tuple[Resolved, ...]) -> Lowered:
    """Compute the operators and tensors of a network from its geometry."""
    lowered = Lowered(resolved[0].input)
    _chain(lowered, resolved, 0)
    _settle(lowered)
    return lowered


def without_kernel(lowered: Lowered) -> list[str]:
    """Operators that TensorFlow Lite Micro lacks, or has in float32 only."""
    return sorted({operator.code for operator in lowered.operators} & {"GELU", "ELU"})


def registration(code: str) -> str:
    """Method of TensorFlow Lite Micro's MicroMutableOpResolver that registers an operator: `AddConv2D`."""
    return "Add" + "".join(part[:1] + part[1:].lower() for part in code.replace("_2D", "2D").split("_")).replace("2d", "2D")


# --- adding operators and constants ----------------------------------------------------------------------------------


def _emit(lowered: Lowered, code: str, inputs: tuple[int, ...], size: int, name: int, channels: int = 0) -> int:
    """Add an operator and return the number of its output tensor."""
    _settle(lowered)
    lowered.sizes.append(size)
    lowered.names.append(name)
    output = len(lowered.sizes) - 1
    lowered.operators.append(Operator(code, inputs, output, channels))
    return output


def _settle(lowered: Lowered) -> None:
    """Store the weights of the last operator; no batch norm or ReLU can be merged into it any more."""
    for constant in lowered._weights:
        _store(lowered, constant)
    lowered._weights = []
    lowered._folds = lowered._fuses = lowered._scales = _NONE


def _store(lowered: Lowered, constant: Constant) -> None:
    if constant.once:
        if constant.content in lowered._once:
            return
        lowered._once.add(constant.content)
    lowered.constants.append(constant)


def _literal(lowered: Lowered, content: str, size: int, name: int = _LITERAL) -> None:
    _store(lowered, Constant(size, 0, name, content, True))


# --- layers ----------------------------------------------------------------------------------------------------------


def _chain(lowered: Lowered, rows: tuple[Resolved, ...], x: int) -> int:
    for row in rows:
        x = _layer(lowered, row, x, _PREFIX + len(row.first or row.name) + len("_1/"))
    return x


def _layer(lowered: Lowered, row: Resolved, x: int, name: int) -> int:
    """Add a layer that reads tensor `x`, and return the number of its output.

    Args:
        name: letters at the beginning of the names of its tensors.
    """
    match row.layer:
        case Dropout():
            return x
        case SeparableConv() | SpatialSeparableConv() | Conv():
            return _convolution(lowered, row, x, name)
        case BatchNorm():
            return _batch_norm(lowered, row, x, name)
        case Activation(function):
            return _activation(lowered, function, x, name)
        case MaxPool() | AveragePool():
            kind = "MAX_POOL_2D" if isinstance(row.layer, MaxPool) else "AVERAGE_POOL_2D"
            x = _emit(lowered, kind, (x,), math.prod(row.output), name + len("MaxPool2d"))
            lowered._fuses = x
            return x
        case GlobalAveragePool():
            _store(lowered, Constant(8, 0, name + len("Mean/reduction_indices")))
            return _emit(lowered, "MEAN", (x,), row.output[0], name + len("Mean"))
        case Flatten():
            if len(row.input) == 1:
                return x
            _literal(lowered, f"shape {row.output}", 8)
            return _emit(lowered, "RESHAPE", (x,), row.output[0], name + len("Reshape"))
        case Dense(units) as layer:
            whole = name + len("MatMul") + (name + len(";BiasAdd") if layer.use_bias else 0)
            x = _emit(lowered, "FULLY_CONNECTED", (x,), units, whole, units)
            bias = [Constant(4 * units, units, name + len("BiasAdd"))] if layer.use_bias else []
            lowered._weights = [Constant(units * row.input[0], units, name + len("MatMul")), *bias]
            lowered._folds, lowered._fuses, lowered._shared = x, x, False
            return x
        case Softmax():
            return _emit(lowered, "SOFTMAX", (x,), row.output[0], len("Identity"))
        case Gate():
            return _gate(lowered, row, x, name)
        case Residual():
            _settle(lowered)  # both sides read it
            left = _chain(lowered, row.branch, x)
            _settle(lowered)
            right = _chain(lowered, row.shortcut, x)
            x = _emit(lowered, "ADD", (left, right), math.prod(row.output), name + len("Add"))
            lowered._fuses = x
            return x
        case _:
            assert_never(row.layer)


def _convolution(lowered: Lowered, row: Resolved, x: int, name: int) -> int:
    layer, inner, filters = row.layer, row.input[-1], row.output[-1]
    content, bias, start = f"weights {row.first or row.name}", False, name
    match layer:
        case SeparableConv():
            inner *= layer.depth_multiplier
            name, bias = name + len("separable_conv2d"), layer.use_bias
            x = _depthwise(lowered, x, row.output[:2], layer.kernel**2, inner, name + len("/depthwise"), f"{content} square")
        case SpatialSeparableConv():
            long = name + len("vertical_depthwise")
            x = _depthwise(lowered, x, first_half_positions(row), layer.kernel, inner, long, f"{content} vertical")
            name, bias = name + len("separable_conv2d"), layer.use_bias
            x = _depthwise(
                lowered, x, row.output[:2], layer.kernel, inner, name + len("/depthwise"), f"{content} horizontal"
            )
        case Conv():
            inner *= layer.kernel**2
            name, bias = name + len("convolution"), layer.use_bias
        case _:
            raise AssertionError(f"{row.name} is no convolution")
    long = name + 2 * start + len("BiasAdd;Squeeze;") if bias else name
    x = _emit(lowered, "CONV_2D", (x,), math.prod(row.output), long, filters)
    lowered._weights = [
        Constant(inner * filters, filters, name, f"{content} matrix", True),
        Constant(4 * filters, filters, lowered.names[x]) if bias else _zeros(filters),
    ]
    lowered._folds, lowered._fuses, lowered._shared = x, x, bool(layer.weights)
    return x


def _depthwise(
    lowered: Lowered, x: int, map_size: tuple[int, ...], area: int, channels: int, name: int, weights: str
) -> int:
    """Add a depthwise convolution of `area` weights per channel, and return the number of its output."""
    x = _emit(lowered, "DEPTHWISE_CONV_2D", (x,), math.prod(map_size) * channels, name + 1, channels)
    lowered._weights = [Constant(area * channels, channels, name, weights, True), _zeros(channels)]
    return x


def _zeros(channels: int) -> Constant:
    """The zero bias that the converter adds to a convolution without one."""
    return Constant(4 * channels, channels, _LITERAL, f"zeros {4 * channels}")


def _batch_norm(lowered: Lowered, row: Resolved, x: int, name: int) -> int:
    if lowered._folds == x:
        lowered.names[x] += 2 * name + len("batchnorm/add_1;;batchnorm/sub")
        kernel, *_ = lowered._weights
        channels = kernel.scales
        # its scale goes into the quantisation of each channel: shared weights stay the same bytes, of another tensor
        lowered._weights = [kernel._replace(once=False), Constant(4 * channels, channels, lowered.names[x])]
        lowered._folds = _NONE
        return x
    lowered.unfolded.append(row.name)
    size, channels = math.prod(row.output), row.output[-1]
    if lowered._scales == x:
        x = _emit(lowered, "ADD", (x,), size, name + len("add"))
        lowered._weights = [Constant(channels, 1, name + len("sub"))]
    elif len(row.output) == 1:
        x = _emit(lowered, "MUL", (x,), size, name + len("batchnorm/mul_1"))
        x = _emit(lowered, "ADD", (x,), size, name + len("batchnorm/add_1"))
        lowered._weights = [Constant(channels, 1, name + len("batchnorm/mul"))] * 2
    else:
        long = 3 * name + len("BiasAdd;depthwise;Sub;")
        x = _emit(lowered, "DEPTHWISE_CONV_2D", (x,), size, long, channels)
        full = f"full {channels}"  # of a single weight a channel, which is its whole range
        lowered._weights = [
            Constant(channels, channels, name + len("depthwise"), full),
            Constant(4 * channels, channels, long),
        ]
    lowered._fuses = x
    return x


def _activation(lowered: Lowered, function: Function, x: int, name: int) -> int:
    if function in _FUSED and lowered._fuses == x:
        lowered.names[x] += name + len("Relu;")
        lowered._weights[1:] = [bias._replace(name=bias.name + name + len("Relu;")) for bias in lowered._weights[1:]]
        lowered._scales = x if function == "relu" and lowered._folds == x and not lowered._shared else _NONE
        lowered._folds = _NONE
        return x
    size, before = lowered.sizes[x], x
    for code in _CODES[function]:
        inputs = (before, x) if code == "MUL" else (x,)
        grown = 4 if code in ("DEQUANTIZE", "ELU") else 1
        x = _emit(lowered, code, inputs, grown * size, (5 * name + _GELU_NAME if code == "GELU" else name + len("Sigmoid")))
        if grown > 1:
            lowered.floats.add(x)
    if function == "silu":
        lowered._fuses = x
    return x


def _gate(lowered: Lowered, row: Resolved, x: int, name: int) -> int:
    assert isinstance(row.layer, Gate)
    size, rank, half = math.prod(row.output), len(row.output) + 1, row.output[-1]
    for content in ("zeros", "ones", f"half {half}"):
        _literal(lowered, f"{content} {4 * rank}", 4 * rank)
    _settle(lowered)
    slice_name = _PREFIX + len("strided_slice_1")
    left = _emit(lowered, "STRIDED_SLICE", (x,), size, slice_name)
    left = _activation(lowered, row.layer.function, left, name + len(row.layer.function))
    right = _emit(lowered, "STRIDED_SLICE", (x,), size, slice_name)
    x = _emit(lowered, "MUL", (left, right), size, name + len("Mul"))
    lowered._fuses = x
    return x
