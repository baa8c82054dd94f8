"""Keras model files that every Keras 3 from OLDEST_KERAS on loads.

A newer Keras writes every constructor argument of a layer into the file, also those that an older one does not know, which
then refuses the file. Such arguments have their default values in all networks of this project, so they are left out.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

OLDEST_KERAS = "3.10"
TRIED_WITH = ("3.10.0", "3.12.0", "3.14.1", "3.15.1")  # exported files of every kind of layer loaded, with equal outputs

_LAYER = ("name", "trainable", "dtype")
_WEIGHTS = ("initializer", "regularizer", "constraint")
_CONVOLUTION = (
    *_LAYER, "kernel_size", "strides", "padding", "data_format", "dilation_rate", "activation", "use_bias",
    "activity_regularizer", *(f"bias_{part}" for part in _WEIGHTS),
)  # fmt: skip
_KERNEL = tuple(f"kernel_{part}" for part in _WEIGHTS)
_DEPTHWISE = ("depth_multiplier", *(f"depthwise_{part}" for part in _WEIGHTS))
_POOL = (*_LAYER, "pool_size", "strides", "padding", "data_format")

# Constructor arguments, as Keras 3.10.0 has them, of every class in a file that is exported.
ARGUMENTS: dict[str, frozenset[str]] = {
    name: frozenset(arguments)
    for name, arguments in {
        "Functional": ("name", "trainable", "layers", "input_layers", "output_layers"),
        "DTypePolicy": ("name",),
        "Rescaling": (*_LAYER, "scale", "offset"),
        "InputLayer": (*_LAYER, "batch_shape", "sparse", "ragged", "optional"),
        "Conv2D": (*_CONVOLUTION, "filters", "groups", *_KERNEL),
        "DepthwiseConv2D": (*_CONVOLUTION, *_DEPTHWISE),
        "SeparableConv2D": (*_CONVOLUTION, "filters", *_DEPTHWISE, *(f"pointwise_{part}" for part in _WEIGHTS)),
        "Dense": (
            *_LAYER, "units", "activation", "use_bias", "activity_regularizer", *_KERNEL,
            *(f"bias_{part}" for part in _WEIGHTS),
        ),
        "BatchNormalization": (
            *_LAYER, "axis", "momentum", "epsilon", "center", "scale", "synchronized", "moving_mean_initializer",
            "moving_variance_initializer", *(f"{name}_{part}" for name in ("beta", "gamma") for part in _WEIGHTS),
        ),
        "Activation": (*_LAYER, "activation"),
        "Dropout": (*_LAYER, "rate", "seed", "noise_shape"),
        "MaxPooling2D": _POOL,
        "AveragePooling2D": _POOL,
        "GlobalAveragePooling2D": (*_LAYER, "data_format", "keepdims"),
        "Flatten": (*_LAYER, "data_format"),
        "Add": _LAYER,
        "Multiply": _LAYER,
        "GetItem": ("name",),
        "GlorotUniform": ("seed",),
        "Zeros": (),
        "Ones": (),
    }.items()
}  # fmt: skip


def save_model(model: Any, path: Path) -> None:
    """Save a Keras model of standard layers as a .keras file.

    Raises:
        ValueError: a layer is not in ARGUMENTS.
    """
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in entries:
            if info.filename == "config.json":
                content = json.dumps(_known(json.loads(content))).encode()
            archive.writestr(info, content)


def _known(value: Any) -> Any:
    """A configuration without the arguments that Keras 3.10 does not know."""
    if isinstance(value, list):
        return [_known(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    value = {key: _known(entry) for key, entry in value.items()}
    if "module" in value and value.get("module") and isinstance(value.get("config"), dict):
        if value["class_name"] not in ARGUMENTS:
            raise ValueError(f"{value['class_name']} is not in the list of Keras {OLDEST_KERAS}'s constructor arguments")
        known = ARGUMENTS[value["class_name"]]
        value["config"] = {key: entry for key, entry in value["config"].items() if key in known}
    return value
