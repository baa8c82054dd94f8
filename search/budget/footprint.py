"""Memory of the int8 form of a network: size of its file, peak of its activations, arena of its interpreter.

All three are computed from `search.budget.lowering`, with no model built and nothing converted. Flash and arena were
fitted to the files of 41 networks that TensorFlow 2.21 converted: 27 near the limits of the shipped studies, 14 of one or
two kinds of layer. The arena is that of TensorFlow Lite Micro (`tflite-micro` 0.dev20261023182759, x86-64) to the byte in 40
of them and in five of the six references. No file is larger than predicted, and of those above 40 KB none is more than 0.7 %
smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from search.budget.lowering import Lowered, Operator

# --- flash -----------------------------------------------------------------------------------------------------------

_FILE_HEADER = 972  # version, metadata, codes of the operators
_FILE_OPERATOR = 143  # with the tensor that it writes
_FILE_CONSTANT = 98
_FILE_SCALE = 12  # float32 scale and int64 zero point


def flash_bytes(lowered: Lowered) -> int:
    """Bytes of the .tflite file, an upper bound for tables and alignment.

    Every weight takes one byte, every bias four (a convolution without one gets zeros), and each channel of both 12 bytes of
    scale and zero point; constants of equal content are stored once. Names of tensors contain the names of layers.
    """
    contents: dict[str, int] = {}
    size = scales = letters = 0
    for constant in lowered.constants:
        scales += constant.scales
        letters += constant.name
        if constant.content:
            contents[constant.content] = constant.bytes
        else:
            size += constant.bytes
    letters += sum(lowered.names)
    scales += len(lowered.sizes) - len(lowered.floats)
    tables = _FILE_HEADER + _FILE_OPERATOR * len(lowered.operators) + _FILE_CONSTANT * len(lowered.constants)
    return size + sum(contents.values()) + _FILE_SCALE * scales + letters + tables


# --- arena -----------------------------------------------------------------------------------------------------------

# Persistent allocations of TensorFlow Lite Micro on a 64-bit machine; the pointers of a microcontroller are half as long.
_ALIGNMENT = 16
_ARENA_FIXED = 638
_ARENA_TENSOR = 24  # TfLiteEvalTensor, of computed tensors and of constants
_ARENA_OPERATOR = {  # node (64), data of the kernel (aligned) and parsed options
    "ADD": 136,
    "AVERAGE_POOL_2D": 136,
    "CONV_2D": 172,
    "DEPTHWISE_CONV_2D": 172,
    "DEQUANTIZE": 173,
    "ELU": 173,
    "FULLY_CONNECTED": 180,
    "HARD_SWISH": 96,
    "LOGISTIC": 80,
    "MAX_POOL_2D": 136,
    "MEAN": 352,
    "MUL": 116,
    "QUANTIZE": 173,
    "RELU": 96,
    "RELU6": 96,
    "RESHAPE": 305,
    "SOFTMAX": 0,  # part of _ARENA_FIXED: every network has one
    "STRIDED_SLICE": 184,
    "TANH": 80,
}
_ARENA_UNKNOWN_OPERATOR = (
    184  # of an operator without a kernel there, such as GELU: no more than the largest that may repeat
)
_PLAN_FIXED = 272
_PLAN_TENSOR = 72  # of a computed tensor: in the table of tensors (32) and in those of the planner (40)
_PLAN_CONSTANT = 32


def arena_bytes(lowered: Lowered) -> int:
    """Bytes that TensorFlow Lite Micro allocates: shared by computed tensors in the file's order, then its tables."""
    persistent = _ARENA_FIXED + _ARENA_TENSOR * (len(lowered.sizes) + len(lowered.constants))
    for operator in lowered.operators:
        persistent += _ARENA_OPERATOR.get(operator.code, _ARENA_UNKNOWN_OPERATOR)
        persistent += 2 * _aligned(4 * operator.channels)  # multiplier and shift of each channel
    return head_bytes(lowered) + _aligned(persistent)


def arena_to_allocate(lowered: Lowered) -> int:
    """Bytes of arena with which the runtime's AllocateTensors() succeeds, at most 16 more than it needs.

    While it plans the arena, tables of all tensors stand where the maps will be. They are larger than the maps of networks
    for images of a few pixels; for all others this is `arena_bytes`. The constants were fitted to six such networks.
    """
    tables = _PLAN_FIXED + _aligned(_PLAN_TENSOR * len(lowered.sizes) + _PLAN_CONSTANT * len(lowered.constants))
    return arena_bytes(lowered) + max(0, tables - head_bytes(lowered))


def head_bytes(lowered: Lowered) -> int:
    """Bytes of the arena that computed tensors share.

    As the runtime's greedy planner does, tensors are placed by falling size (of equals the last first), each at the lowest
    offset that is free during its lifetime; gaps that this leaves count.
    """
    sizes = [_aligned(size) for size in lowered.sizes]
    born = {0: 0} | {operator.output: index for index, operator in enumerate(lowered.operators)}
    last = {tensor: index for index, operator in enumerate(lowered.operators) for tensor in operator.inputs}
    last[lowered.operators[-1].output] = len(lowered.operators) - 1
    alive: list[list[int]] = [[] for _ in lowered.operators]  # tensors at each operator
    for tensor in range(len(sizes)):
        for index in range(born[tensor], last.get(tensor, born[tensor]) + 1):
            alive[index].append(tensor)
    offsets: dict[int, int] = {}
    for tensor in sorted(range(len(sizes)), key=lambda number: (-sizes[number], -number)):
        lifetime = range(born[tensor], last.get(tensor, born[tensor]) + 1)
        neighbours = {other for index in lifetime for other in alive[index]} & offsets.keys()
        offset = 0
        for other in sorted(neighbours, key=offsets.__getitem__):
            if offsets[other] - offset >= sizes[tensor]:
                break
            offset = max(offset, offsets[other] + sizes[other])
        offsets[tensor] = offset
    return max(offset + sizes[tensor] for tensor, offset in offsets.items())


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


# --- peak of activations ---------------------------------------------------------------------------------------------

# Sets of finished steps that are examined in one part of a network, before the file's order is taken instead: bounds the
# time for two long branches in a hostile file. A residual of 30 and 30 layers is within it.
MOST_SETS = 100_000


class _Step(NamedTuple):
    """One operator of a part: the tensors that it reads (0 is the input of the part) and the size of its output."""

    inputs: tuple[int, ...]
    size: int


def peak_activation_bytes(lowered: Lowered) -> int:
    """Bytes of the computed tensors alive at once, at the worst moment of the best order of the operators.

    It is a lower bound for every runtime that keeps whole tensors.
    """
    return max(_best(entering, steps) for entering, steps in _parts(lowered))


def _parts(lowered: Lowered) -> Iterator[tuple[int, tuple[_Step, ...]]]:
    """Split the operators wherever one tensor is all that later ones need: (its size, the steps up to the next cut)."""
    sizes = lowered.sizes
    last = {tensor: index for index, operator in enumerate(lowered.operators) for tensor in operator.inputs}
    part: list[Operator] = []
    entering, needed = 0, last[0]  # `needed`: the last operator that reads a tensor written so far
    for index, operator in enumerate(lowered.operators):
        part.append(operator)
        if needed <= index:
            yield sizes[entering], _numbered(part, entering, sizes)
            part, entering = [], operator.output
        needed = max(needed, last.get(operator.output, index))


def _numbered(part: Sequence[Operator], entering: int, sizes: Sequence[int]) -> tuple[_Step, ...]:
    numbers = {entering: 0} | {operator.output: number for number, operator in enumerate(part, 1)}
    return tuple(_Step(tuple(numbers[tensor] for tensor in operator.inputs), sizes[operator.output]) for operator in part)


@lru_cache(maxsize=65_536)  # the blocks of a study are alike
def _in_order(entering: int, steps: tuple[_Step, ...]) -> int:
    """Bytes at the worst moment of the given order."""
    last = {tensor: index for index, step in enumerate(steps) for tensor in step.inputs}
    live, peak = entering, 0
    sizes = [entering, *(step.size for step in steps)]
    for index, step in enumerate(steps):
        live += step.size
        peak = max(peak, live)
        live -= sum(sizes[tensor] for tensor in {*step.inputs} if last[tensor] == index)
    return peak


@lru_cache(maxsize=65_536)
def _best(entering: int, steps: tuple[_Step, ...]) -> int:
    """Least bytes at the worst moment of any order, by dynamic programming over the sets of finished operators.

    (Ahn et al., "Ordering chaos: memory-aware scheduling of irregularly wired neural networks for edge devices", 2020.)
    """
    if all(number in step.inputs for number, step in enumerate(steps)):  # each reads what the one before it wrote
        return _in_order(entering, steps)
    readers = [0] * (len(steps) + 1)  # of each tensor, as bits
    for number, step in enumerate(steps):
        for tensor in step.inputs:
            readers[tensor] |= 1 << number
    needs = [sum(1 << (tensor - 1) for tensor in {*step.inputs} if tensor) for step in steps]
    tried = 0
    reached = {0: (0, entering)}  # operators that have run, as bits: the least worst moment so far, and bytes held now
    for _ in steps:
        following: dict[int, tuple[int, int]] = {}
        for done, (worst, held) in reached.items():
            for number, step in enumerate(steps):
                if done >> number & 1 or needs[number] & ~done:
                    continue
                after = done | 1 << number
                peak = max(worst, held + step.size)
                if after not in following:
                    freed = (tensor for tensor in {*step.inputs} if not readers[tensor] & ~after)
                    left = held + step.size - sum(steps[tensor - 1].size if tensor else entering for tensor in freed)
                    following[after] = (peak, left)
                elif peak < following[after][0]:
                    following[after] = (peak, following[after][1])
        reached = following
        tried += len(reached) * len(steps)
        if tried > MOST_SETS:
            return _in_order(entering, steps)
    ((worst, _),) = reached.values()
    return worst
