"""An architecture as annotated Keras 3 source that stands alone: the export format `py`.

No Keras is imported here; the lines of the layers are those of `search.export.keras_layers_source`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import numpy as np

from search.budget.cost import Cost, compute_resolved_cost
from search.data.preprocessing import Pixels
from search.export.keras_layers_source import Line, calls, commented, statements
from search.networks.architecture import LONGEST_NAME, Architecture, identifier
from search.networks.geometry import Resolved, resolve
from search.networks.layers import ConvLayer, Gate, Residual, walk
from search.text import format_shape

WIDTH = 120  # of a line, where one layer a line allows it


def keras_source(
    architecture: Architecture,
    *,
    heading: Sequence[str] = (),
    pixels: Pixels | None = None,
    initializer: str = "glorot_uniform",
    rescaled: Pixels | None = None,
) -> str:
    """Source with `prepare(images)` and `build_model()`; lines of the heading go into its docstring.

    Args:
        rescaled: preprocessing that the network does itself, by a first layer.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
        ValueError: the pixels are normalised for another number of channels than the input has.
    """
    resolved = resolve(architecture)
    body = _build_model(architecture, resolved, initializer, rescaled)
    return _file(architecture, resolved, heading, pixels or Pixels(), body, "build_model().summary()")


def add_source(
    architecture: Architecture,
    *,
    heading: Sequence[str] = (),
    pixels: Pixels | None = None,
    initializer: str = "glorot_uniform",
    rescaled: Pixels | None = None,
) -> str:
    """Source with `prepare(images)` and a `model` made by one `model.add(...)` a layer, for a network that `is_stack`.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
        ValueError: it is no stack, or the pixels are normalised for another number of channels than the input has.
    """
    if not is_stack(architecture):
        raise ValueError("the network branches or calls a layer twice, which no Sequential model does")
    resolved = resolve(architecture)
    body = _adds(architecture, resolved, initializer, rescaled)
    return _file(architecture, resolved, heading, pixels or Pixels(), body, "model.summary()")


def is_stack(architecture: Architecture) -> bool:
    """True if every layer reads the output of the one before it and is called once, as Keras' Sequential requires."""
    named = [layer.weights for layer in walk(architecture.layers) if isinstance(layer, ConvLayer) and layer.weights]
    return len(named) == len(set(named)) and not any(isinstance(one, Residual | Gate) for one in walk(architecture.layers))


# --- the parts of the file -------------------------------------------------------------------------------------------


def _file(
    architecture: Architecture,
    resolved: tuple[Resolved, ...],
    heading: Sequence[str],
    pixels: Pixels,
    model: Iterator[str],
    main: str,
) -> str:
    channels = architecture.input[-1]
    if len(pixels.mean) not in (0, channels):
        raise ValueError(f"pixels are normalised for {len(pixels.mean)} channels, the input has {channels}")
    docstring = "\n".join(_docstring(architecture, compute_resolved_cost(resolved), heading, pixels))
    body = [*_prepare(architecture, pixels), "", "", *model]
    wide = "# ruff: noqa: E501\n\n" if any(len(line) > WIDTH for line in body) else ""
    code = "\n".join(["import keras", "import numpy as np", "from keras import layers", "", *body])
    return f'{docstring}\n\n{wide}{code}\n\n\nif __name__ == "__main__":\n    {main}\n'


def _docstring(architecture: Architecture, cost: Cost, heading: Sequence[str], pixels: Pixels) -> Iterator[str]:
    name = " ".join(printable(architecture.name).replace('"', "'").split()) or "network"
    name = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."
    field = cost.receptive_field
    facts = {
        "Parameters": f"{cost.params:,} ({cost.trainable_params:,} trainable)",
        "Multiply-adds": f"{cost.macs:,} for one image",
        "Receptive field": f"{field}x{field} pixels" if field else "the whole image",
        "Pixels": f"{pixels.describe()}; see `prepare`",
    }
    title = f"{name}: {format_shape(architecture.input)} images in, probabilities of {architecture.classes} classes out."
    yield f'"""{docstring_text(title)}'
    yield ""
    for key, words in facts.items():
        yield from textwrap.wrap(f"{key:<17}{words}", WIDTH, subsequent_indent=" " * 17)
    if heading:
        yield ""
    for line in heading:
        yield from textwrap.wrap(docstring_text(line).rstrip(), WIDTH, break_long_words=False) or [""]
    yield '"""'


def _prepare(architecture: Architecture, pixels: Pixels) -> Iterator[str]:
    for constant, values in {"MEAN": pixels.mean, "STD": pixels.std}.items():
        if values:
            line = f'{constant} = np.array([{", ".join(str(np.float32(value)) for value in values)}], dtype="float32")'
            yield line if len(line) <= WIDTH else f"{line}  # fmt: skip"
    yield from ("", "") if pixels.mean else ("",)
    yield "def prepare(images: np.ndarray) -> np.ndarray:"
    shape = ", ".join(map(str, ("n", *architecture.input)))
    yield f'    """Make the network\'s float32 input ({shape}) of uint8 images of the same shape."""'
    if pixels.is_raw:
        yield '    return images.astype("float32")'
    elif pixels.mean:
        yield '    return (images.astype("float32") / 255 - MEAN) / STD'
    else:
        yield '    return images.astype("float32") / 255'


def _build_model(
    architecture: Architecture, resolved: tuple[Resolved, ...], initializer: str, rescaled: Pixels | None
) -> Iterator[str]:
    name = f'name="{identifier(architecture.name)}"'
    yield "def build_model() -> keras.Model:"
    classes = architecture.classes
    yield f'    """Build the network, not trained: what `prepare` returns in, probabilities (n, {classes}) out."""'
    yield "    # fmt: off"
    if is_stack(architecture):
        yield "    return keras.Sequential(["
        yield f"        {_input(architecture)},"
        if rescaled is not None:
            yield f"        {_rescaling(rescaled)},"
        lines = [Line(f"{line.code},", line.columns) for line in calls(resolved, initializer)]
        yield from commented(lines, "        ")
        yield f"    ], {name})"
    else:
        yield f"    x = image = {_input(architecture)}"
        if rescaled is not None:
            yield f"    x = {_rescaling(rescaled)}(x)"
        yield from commented(list(statements(resolved, "x", initializer)), "    ")
        yield f"    return keras.Model(image, x, {name})"
    yield "    # fmt: on"


def _adds(
    architecture: Architecture, resolved: tuple[Resolved, ...], initializer: str, rescaled: Pixels | None
) -> Iterator[str]:
    yield "# fmt: off"
    yield f'model = keras.Sequential(name="{identifier(architecture.name)}")'
    yield f"model.add({_input(architecture)})"
    if rescaled is not None:
        yield f"model.add({_rescaling(rescaled)})"
    lines = [Line(f"model.add({line.code})", line.columns) for line in calls(resolved, initializer)]
    yield from commented(lines, "")
    yield "# fmt: on"


def _rescaling(pixels: Pixels) -> str:
    """The layer that prepares raw pixels."""
    scale, offset = ([float(np.float32(value)) for value in values] for values in pixels.linear)
    return f'layers.Rescaling({scale}, {offset}, name="rescaling")'


def _input(architecture: Architecture) -> str:
    return f'keras.Input({architecture.input}, name="image")'


# --- text ------------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """The text with a space for every control character, line break and lone surrogate."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def docstring_text(text: str) -> str:
    """The text as it may stand between triple double quotes, not directly before the closing ones."""
    return printable(text).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
