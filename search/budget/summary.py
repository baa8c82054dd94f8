"""A network layer by layer with its costs: the rows of every table of layers, and the summary that `show --json` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from search.budget.cost import compute_layer_cost, compute_resolved_cost
from search.budget.lowering import without_kernel
from search.budget.metrics import METRICS
from search.networks.architecture import Architecture
from search.networks.geometry import Resolved, Shape, resolve
from search.networks.layers import Layer, describe
from search.text import format_field, format_shape

Side = Literal["branch", "shortcut"]


class LayerRow(NamedTuple):
    """One layer as a table shows it; layers inside a residual precede the sum that closes it."""

    name: str
    layer: Layer
    path: tuple[Side, ...]  # sides of the residuals around it, outermost first
    input: Shape
    output: Shape
    is_resized: bool  # True if height and width of the output differ from those of the row before
    receptive_field: int | None  # in pixels, unclipped; None from global pooling, flatten or dense on
    exceeds_image: bool  # True if the receptive field is larger than the image
    params: int
    macs: int

    @property
    def options(self) -> str:
        """Settings of the layer: `32 filters, 3x3, stride 2`."""
        return describe(self.layer)

    @property
    def output_text(self) -> str:
        """`32x32x3`."""
        return format_shape(self.output)

    def field_text(self, mark: str = "") -> str:
        """`9x9`, with the mark if it exceeds the image; empty if there is none."""
        return format_field(self.receptive_field, mark if self.exceeds_image else "")


def layer_rows(architecture: Architecture) -> list[LayerRow]:
    """The layers of a network from its input to its output.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    side, rows = max(architecture.input[:2]), list[LayerRow]()
    for path, resolved in _with_paths(resolve(architecture), ()):
        cost, field = compute_layer_cost(resolved), resolved.receptive_field
        rows.append(
            LayerRow(
                name=resolved.name,
                layer=resolved.layer,
                path=path,
                input=resolved.input,
                output=resolved.output,
                is_resized=not rows or resolved.output[:-1] != rows[-1].output[:-1],
                receptive_field=field,
                exceeds_image=field is not None and field > side,
                params=cost.params,
                macs=cost.macs,
            )
        )
    return rows


def summarize(architecture: Architecture) -> dict[str, Any]:
    """Costs of the network and of its layers, as `show --json` prints them; receptive fields are [height, width].

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    total = compute_resolved_cost(resolve(architecture))
    return {
        "name": architecture.name,
        "params": total.params,
        "trainable_params": total.trainable_params,
        "macs": total.macs,
        "receptive_field": _pair(total.receptive_field),
        "output": [architecture.classes],
        "int8": {
            **{name: metric.compute(total) for name, metric in METRICS.items() if metric.is_int8},
            "unfolded": total.lowered.unfolded,
            "without_kernel": without_kernel(total.lowered),
        },
        "layers": [
            {
                "name": row.name,
                "kind": row.layer.kind,
                "output": list(row.output),
                "receptive_field": _pair(row.receptive_field),
                "params": row.params,
                "macs": row.macs,
            }
            for row in layer_rows(architecture)
        ],
    }


def _with_paths(rows: tuple[Resolved, ...], path: tuple[Side, ...]) -> Iterator[tuple[tuple[Side, ...], Resolved]]:
    """Every layer with its path, in the order of `search.networks.geometry.flatten`."""
    for row in rows:
        yield from _with_paths(row.branch, (*path, "branch"))
        yield from _with_paths(row.shortcut, (*path, "shortcut"))
        yield path, row


def _pair(value: int | None) -> list[int] | None:
    return None if value is None else [value, value]
