"""Runs a .tflite file with the LiteRT interpreter, and reads what it says of itself."""

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
    """The input or the output of a file; in integers, real = (stored - zero_point) * scale."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; scale and zero point where there are any."""
        plain = {"shape": list(self.shape), "dtype": self.dtype}
        return plain | ({"scale": self.scale, "zero_point": self.zero_point} if self.scale else {})


@dataclass(frozen=True)
class Facts:
    """What a file says of itself."""

    input: Tensor
    output: Tensor
    operators: tuple[str, ...]  # each once, by the name of its builtin, in order of appearance
    dtypes: frozenset[str]  # of all tensors between input and output, constants included


def read(content: bytes) -> Facts:
    """Read what a .tflite file says of itself.

    Raises:
        ValueError: it is none.
    """
    from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped]

    with quiet():
        interpreter = _interpreter(content)
    model = schema.ModelT.InitFromPackedBuf(content)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    codes = [model.operatorCodes[one.opcodeIndex].builtinCode for one in model.subgraphs[0].operators]
    (given,), (told,) = interpreter.get_input_details(), interpreter.get_output_details()
    return Facts(
        input=_tensor(given),
        output=_tensor(told),
        operators=tuple(dict.fromkeys(names[code] for code in codes)),
        dtypes=frozenset(np.dtype(tensor["dtype"]).name for tensor in interpreter.get_tensor_details()),
    )


def outputs(
    content: bytes, images: npt.NDArray[np.uint8], prepare: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]
) -> npt.NDArray[np.float32]:
    """What the file makes of images (n, height, width, channels): real values (n, classes), one image a call.

    Args:
        prepare: makes the file's input of images, in its dtype.
    """
    parts = np.array_split(images, max(1, min(cores(), len(images) // 8)))

    def run(part: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        interpreter = _interpreter(content)
        (given,), (told,) = interpreter.get_input_details(), interpreter.get_output_details()
        found = []
        for image in part:
            interpreter.set_tensor(given["index"], prepare(image[None]))
            interpreter.invoke()
            found.append(interpreter.get_tensor(told["index"])[0])
        return _real(np.stack(found), _tensor(told))

    with quiet(), ThreadPoolExecutor(len(parts)) as threads:  # an interpreter computes without Python's lock
        return np.concatenate(list(threads.map(run, parts)))


def _interpreter(content: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # type: ignore[import-untyped]

    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    except RuntimeError:  # its fast kernels refuse tensors that are always zero, as a network has whose units are all dead
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=plain)
        interpreter.allocate_tensors()
    return interpreter


def _tensor(details: dict[str, Any]) -> Tensor:
    scale, zero_point = details["quantization"]
    shape = tuple(map(int, details["shape_signature"]))  # -1 where it is left open
    return Tensor(shape, np.dtype(details["dtype"]).name, float(scale), int(zero_point))


def _real(stored: npt.NDArray[Any], tensor: Tensor) -> npt.NDArray[np.float32]:
    if not tensor.scale:
        return stored.astype(np.float32)
    return (stored.astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)
