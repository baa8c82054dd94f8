"""Runs .tflite files with the LiteRT interpreter and reads their tensors and operators."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search.system import cores, quiet


@dataclass(frozen=True)
class Tensor:
    """Input or output tensor of a file; if int8, real = (stored - zero_point) * scale."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    def to_dict(self) -> dict[str, Any]:
        """The tensor as plain JSON values; scale and zero point only if it is quantised."""
        plain = {"shape": list(self.shape), "dtype": self.dtype}
        return plain | ({"scale": self.scale, "zero_point": self.zero_point} if self.scale else {})


@dataclass(frozen=True)
class Facts:
    """Tensors and operators of a file."""

    input: Tensor
    output: Tensor
    operators: tuple[str, ...]  # names of builtins, each once, in order of appearance
    dtypes: frozenset[str]  # of all tensors between input and output, constants included


def read(content: bytes) -> Facts:
    """Read a .tflite file.

    Raises:
        ValueError: it is no .tflite file.
    """
    from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped]

    with quiet():
        interpreter = _interpreter(content)
    model = schema.ModelT.InitFromPackedBuf(content)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    codes = [model.operatorCodes[operator.opcodeIndex].builtinCode for operator in model.subgraphs[0].operators]
    (input_tensor,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    return Facts(
        input=_tensor(input_tensor),
        output=_tensor(output),
        operators=tuple(dict.fromkeys(names[code] for code in codes)),
        dtypes=frozenset(np.dtype(tensor["dtype"]).name for tensor in interpreter.get_tensor_details()),
    )


def outputs(
    content: bytes,
    images: npt.NDArray[np.uint8],
    prepare: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]],
    *,
    reference_kernels: bool = False,
) -> npt.NDArray[np.float32]:
    """Outputs of a file for images (n, height, width, channels) as real values (n, classes), one image a call.

    Args:
        prepare: converts images to the file's input, in its dtype.
        reference_kernels: run LiteRT's portable kernels instead of those optimised for this processor.
    """
    parts = np.array_split(images, max(1, min(cores(), len(images) // 8)))

    def run(part: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        interpreter = _interpreter(content, reference_kernels)
        (input_tensor,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
        stored = []
        for image in part:
            interpreter.set_tensor(input_tensor["index"], prepare(image[None]))
            interpreter.invoke()
            stored.append(interpreter.get_tensor(output["index"])[0])
        return _real(np.stack(stored), _tensor(output))

    with quiet(), ThreadPoolExecutor(len(parts)) as threads:  # an interpreter releases Python's lock while it computes
        return np.concatenate(list(threads.map(run, parts)))


def _interpreter(content: bytes, reference_kernels: bool = False) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # type: ignore[import-untyped]

    def allocate(kernels: Any) -> Any:
        interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
        interpreter.allocate_tensors()
        return interpreter

    if reference_kernels:
        return allocate(OpResolverType.BUILTIN_REF)
    try:
        return allocate(OpResolverType.AUTO)
    except RuntimeError:  # XNNPACK rejects tensors that are always zero, as a network has whose units are all dead
        return allocate(OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)


def _tensor(details: dict[str, Any]) -> Tensor:
    scale, zero_point = details["quantization"]
    shape = tuple(map(int, details["shape_signature"]))  # -1 where it is left open
    return Tensor(shape, np.dtype(details["dtype"]).name, float(scale), int(zero_point))


def _real(stored: npt.NDArray[Any], tensor: Tensor) -> npt.NDArray[np.float32]:
    if not tensor.scale:
        return stored.astype(np.float32)
    return (stored.astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)
