"""The size of the int8 .tflite file that `export` writes, with no model built and nothing converted.

The file holds every weight in a byte, every bias in four (a convolution without one gets zeros), and 12 bytes of scale and
zero point for each channel of both; around them the tables of operators and tensors, and the names of all tensors, which
name the layers. Constants of equal bytes are stored once: shared weights as long as batch norm has flipped the sign of none
of their channels. The tables' sizes were fitted by least squares to 97 converted networks (TensorFlow 2.21).
"""

from __future__ import annotations

from search.budget.lowering import Lowered

_FILE = 588  # header, version, metadata
_OPERATOR = 124  # with the tensor that it writes
_CODE = 28  # of each kind of operator
_CONSTANT = 109
_SCALE = 12  # float32 scale and int64 zero point


def flash_bytes(lowered: Lowered) -> int:
    """Bytes of the file, where the model is called "network"; longer names make it longer."""
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
