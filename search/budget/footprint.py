"""The working memory of a network in int8, with no model built: what is computed and still needed, at the worst moment.

`peak_activation_bytes` is that of the best order in which the operators can run: the bound of every runtime that holds whole
tensors. `arena_bytes` is what TensorFlow Lite Micro takes, which runs the file's own order (a gate's first half before the
second is cut off, the branch of a residual before its shortcut) and keeps its tables in the same memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from search.budget.lowering import Lowered, Operator

# Steps tried from sets of steps that can have run, in a part between two points where one tensor is left: beyond, the file's
# order stands, or a hostile file of two long branches would take for ever. A residual of 30 and 30 layers is within it.
MOST_TRIED = 100_000

_ALIGNMENT = 16
# What TensorFlow Lite Micro keeps beside them on a 64-bit machine (a microcontroller's pointers are half as long), fitted by
# least squares to the arenas of 88 converted networks.
_FIXED = 740
_TENSOR = 52  # computed or stored
_OPERATOR = 86
_CHANNEL = 8  # multiplier and shift


class _Step(NamedTuple):
    """One operator of a part: the tensors that it reads, 0 being what enters the part, and the size of its output."""

    inputs: tuple[int, ...]
    size: int


def peak_activation_bytes(lowered: Lowered) -> int:
    """Bytes of the computed tensors that are needed at once, at the worst moment of the best order."""
    return max(_best(entering, steps) for entering, steps in _parts(lowered))


def arena_bytes(lowered: Lowered) -> int:
    """What TensorFlow Lite Micro allocates for the network."""
    tensors = len(lowered.sizes) + len(lowered.constants)
    channels = sum(operator.channels for operator in lowered.operators)
    kept = _FIXED + _TENSOR * tensors + _OPERATOR * len(lowered.operators) + _CHANNEL * channels
    return head_bytes(lowered) + kept


def head_bytes(lowered: Lowered) -> int:
    """The part of the arena that computed tensors share: placed largest first (of equals the latest), each in the lowest
    gap that is free while it lives, as the runtime's greedy planner does; so what it fails to pack counts too.
    """
    sizes = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in lowered.sizes]
    born = {0: 0} | {operator.output: index for index, operator in enumerate(lowered.operators)}
    last = {tensor: index for index, operator in enumerate(lowered.operators) for tensor in operator.inputs}
    last[lowered.operators[-1].output] = len(lowered.operators) - 1
    alive: list[list[int]] = [[] for _ in lowered.operators]  # at each operator
    for tensor in range(len(sizes)):
        for index in range(born[tensor], last.get(tensor, born[tensor]) + 1):
            alive[index].append(tensor)
    offsets: dict[int, int] = {}
    for tensor in sorted(range(len(sizes)), key=lambda one: (-sizes[one], -one)):
        meets = {one for index in range(born[tensor], last.get(tensor, born[tensor]) + 1) for one in alive[index]}
        offset = 0
        for other in sorted(meets & offsets.keys(), key=offsets.__getitem__):
            if offsets[other] - offset >= sizes[tensor]:
                break
            offset = max(offset, offsets[other] + sizes[other])
        offsets[tensor] = offset
    return max(offset + sizes[tensor] for tensor, offset in offsets.items())


def _parts(lowered: Lowered) -> Iterator[tuple[int, tuple[_Step, ...]]]:
    """The operators cut wherever one tensor is all that later ones need: its size, and the steps up to the next cut."""
    sizes = lowered.sizes
    last = {tensor: index for index, operator in enumerate(lowered.operators) for tensor in operator.inputs}
    part: list[Operator] = []
    entering, needed = 0, last[0]  # until which operator earlier tensors are
    for index, operator in enumerate(lowered.operators):
        part.append(operator)
        if needed <= index:
            yield sizes[entering], _numbered(part, entering, sizes)
            part, entering = [], operator.output
        needed = max(needed, last.get(operator.output, index))


def _numbered(part: Sequence[Operator], entering: int, sizes: Sequence[int]) -> tuple[_Step, ...]:
    numbers = {entering: 0} | {operator.output: number for number, operator in enumerate(part, 1)}
    return tuple(_Step(tuple(numbers[one] for one in operator.inputs), sizes[operator.output]) for operator in part)


@lru_cache(maxsize=65_536)  # the blocks of a study are alike
def _in_order(entering: int, steps: tuple[_Step, ...]) -> int:
    """The bytes at the worst moment of the order as it stands."""
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
    """The least bytes at the worst moment of any order, by going through all sets of operators that can have run.

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
        if tried > MOST_TRIED:
            return _in_order(entering, steps)
    ((worst, _),) = reached.values()
    return worst


_FILE = 588  # header, version, metadata


_OPERATOR = 124  # with the tensor that it writes


_CODE = 28  # of each kind of operator


_CONSTANT = 109


_SCALE = 12  # float32 scale and int64 zero point


def flash_bytes(lowered: Lowered) -> int:
    """Bytes of the .tflite file."""
    stored: dict[str, int] = {}
    size = scales = letters = 0
    for constant in lowered.constants:
        scales += constant.scales
        letters += constant.name
        if constant.content:
            stored[constant.content] = constant.bytes
        else:
            size += constant.bytes
    letters += sum(lowered.names)
    scales += len(lowered.sizes) - len(lowered.floats)
    codes = len({operator.code for operator in lowered.operators})
    tables = _FILE + _OPERATOR * len(lowered.operators) + _CODE * codes + _CONSTANT * len(lowered.constants)
    return size + sum(stored.values()) + _SCALE * scales + letters + tables
