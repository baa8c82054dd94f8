"""Costs of a real int8 .tflite file, by which a trained network is checked against its budget once more.

Before training, flash and arena are predicted from the architecture. The file depends on the weights too: a batch norm with
negative factors leaves an operator, and shared weights are stored once only while their bytes are equal.
"""

from __future__ import annotations

import math
from typing import Any

from search.budget.footprint import arena_bytes
from search.budget.limits import Breach, Budget
from search.budget.lowering import Constant, Lowered, Operator
from search.export.int8 import Int8Network
from search.training.device import no_tensorflow, not_installed

MEASURED = ("flash_bytes", "arena_bytes")  # of a file, and named as in METRICS

_CHANNELWISE = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def find_breach(budget: Budget, network: Int8Network) -> Breach | None:
    """The limit that the int8 file of a trained network breaks; None if it breaks none.

    Nothing is converted, and None returned, where the budget limits neither flash nor arena, or the converter is missing.

    Raises:
        RuntimeError: the converter cannot express the network.
    """
    if not budget.limits.keys() & set(MEASURED) or no_tensorflow() or not_installed("ai_edge_litert"):
        return None
    return budget.file_breach(measure_costs(network.content))


def measure_costs(content: bytes) -> dict[str, int]:
    """The costs of an int8 .tflite file by metric: its size, and the arena for its operators and tensors."""
    return {"flash_bytes": len(content), "arena_bytes": arena_bytes(read_graph(content))}


def read_graph(content: bytes) -> Lowered:
    """Operators and computed tensors of a .tflite file; of its constants the number alone."""
    from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped]

    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    image = int(graph.inputs[0])
    lowered = Lowered(tuple(int(size) for size in graph.tensors[image].shape[1:]))
    numbers = {image: 0}
    for operator in graph.operators:
        code, output = codes[operator.opcodeIndex], int(operator.outputs[0])
        inputs = tuple(numbers[int(tensor)] for tensor in operator.inputs if int(tensor) in numbers)
        weights = graph.tensors[operator.inputs[1]] if code in _CHANNELWISE else None
        channels = 0 if weights is None else len(weights.quantization.scale)
        numbers[output] = len(lowered.sizes)
        lowered.sizes.append(math.prod(map(int, graph.tensors[output].shape)) * _width(graph.tensors[output].type, schema))
        lowered.operators.append(Operator(code, inputs, numbers[output], channels))
    lowered.constants = [Constant(0, 0, 0)] * (len(graph.tensors) - len(numbers))
    return lowered


def _width(tensor_type: int, schema: Any) -> int:
    """Bytes of one value."""
    return 1 if tensor_type in (schema.TensorType.INT8, schema.TensorType.UINT8) else 4
