"""Batches of CIFAR's Python and binary versions, read from untrusted bytes.

The pickles of the Python version are read with stand-ins for the five names that they use; nothing in them is executed.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import UserError, reason


def _channels_last(rows: NDArray[Any]) -> NDArray[Any]:
    """(n, 3072) rows, one plane of 32x32 after another -> (n, 32, 32, 3)."""
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def read_binary_batch(content: bytes, *, label_bytes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images (n, 32, 32, 3) and labels (n,) of a batch in the binary version, whose records begin with `label_bytes` labels.

    Raises:
        UserError: its size is not a whole number of records.
    """
    record = label_bytes + 3072
    if len(content) % record:
        raise UserError(f"{len(content):,} bytes are not a whole number of records of {record:,}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return _channels_last(rows[:, label_bytes:]), rows[:, label_bytes - 1]  # CIFAR-100: the coarse label, then the fine


def read_python_batch(content: bytes, *, label_key: bytes) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images (n, 32, 32, 3) and labels (n,) of a pickled batch.

    Raises:
        UserError: it is no batch of CIFAR's, or its pickle asks for more than CIFAR's pickles do.
    """
    batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(batch, dict) or not {b"data", label_key} <= batch.keys():
        raise UserError(f"no dictionary with b'data' and {label_key!r}")
    data, labels = batch[b"data"], batch[label_key]
    if not isinstance(data, _Array) or len(data.shape) != 2 or data.shape[1] != 3072:
        raise UserError("b'data' must be a uint8 array of shape (n, 3072)")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise UserError(f"{label_key!r} must be a list of whole numbers 0 to 255")
    rows = np.frombuffer(data.content, np.uint8).reshape(data.shape, order=data.order)
    return _channels_last(rows), np.array(labels, np.int64)


def _refuse(unpickler: Any) -> None:
    raise UserError("a pickle with operations that CIFAR's lacks was not loaded")


def _set_item(unpickler: Any) -> None:
    _check_keys(unpickler.stack[-2:-1])
    unpickler.load_setitem()


def _set_items(unpickler: Any) -> None:
    _check_keys(unpickler.stack[::2])
    unpickler.load_setitems()


def _check_keys(keys: list[object]) -> None:
    if not all(isinstance(key, bytes | str) for key in keys):
        raise UserError("a pickle with keys that are no names is not CIFAR's and was not loaded")


def _build(unpickler: Any) -> None:
    if not isinstance(unpickler.stack[-2], _Array | _Dtype):
        _refuse(unpickler)
    unpickler.load_build()


_OPERATIONS = (
    *(pickle.PROTO, pickle.FRAME, pickle.MARK, pickle.STOP, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINUNICODE, pickle.SHORT_BINUNICODE),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
)


class _Unpickler(pickle._Unpickler):
    """Unpickler of the five names in CIFAR's pickles, each a stand-in that only stores bytes, with few operations.

    Stand-ins, because numpy trusts the state of a pickled dtype and can be led to read any address by it. The
    interpreted unpickler, because the compiled one takes as much memory as a memo index asks for. Few operations and plain
    keys, because others take as much memory as a length asks for, or hash what is nested so that it takes for ever.
    """

    dispatch = (
        dict.fromkeys(range(256), _refuse)
        | {operation[0]: pickle._Unpickler.dispatch[operation[0]] for operation in _OPERATIONS}
        | {pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items, pickle.BUILD[0]: _build}
    )

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            full = reason(ValueError(f"{module}.{name}"))
            raise UserError(f"a pickle that calls {full!r} is not CIFAR's and was not loaded") from None


class _Array:
    """Stands in for `_reconstruct(ndarray, (0,), b"b")` and the state that follows it."""

    def __init__(self, subtype: object, shape: object, code: object) -> None:
        del subtype, shape, code  # the state has the real ones
        self.shape: tuple[int, ...] = ()
        self.order: Any = "C"
        self.content = b""

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple) or not isinstance(content, bytes):
            raise UserError("arrays must be of uint8")
        is_shape = len(shape) <= 4 and all(type(size) is int and size >= 0 for size in shape)
        if not is_shape or math.prod(shape) != len(content):
            raise UserError(f"an array has {len(content):,} bytes, not what its shape asks for")
        self.shape, self.order, self.content = shape, "F" if is_fortran else "C", content


class _Dtype:
    """Stands in for `dtype(b"u1", ...)` and the state that follows it, which repeats the byte order."""

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        del align, copy
        if code not in ("u1", b"u1"):
            raise UserError("arrays must be of uint8")

    def __setstate__(self, state: object) -> None:
        del state


class _Ndarray:
    """Stands in for the class `ndarray`, an argument of `_reconstruct`."""


def _latin1(text: str, encoding: object) -> bytes:
    """Stands in for `_codecs.encode`: how protocol 2 writes bytes from Python 3."""
    del encoding
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
}
