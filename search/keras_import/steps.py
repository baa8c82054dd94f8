"""Records of an import: layers read in sequence, problems with their remedies, remarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from search.keras_import.options import Pair
from search.networks.geometry import Resolved
from search.networks.layers import Layer, Padding

Check = Callable[[Resolved], tuple[str, str] | None]  # (rule, remedy) where a layer breaks a rule in its position


@dataclass(frozen=True, slots=True)
class Problem:
    """A part of the model that no architecture can hold, and the smallest edit that mends it."""

    where: str
    rule: str
    edit: str
    mended: bool = True  # the import went on as if the edit were made; False: the layer was left out


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution with Keras' options."""

    origin: str
    kind: Literal["depthwise", "separable", "plain"]
    filters: int  # 0 for a depthwise convolution
    kernel: Pair
    stride: Pair
    padding: Padding
    dilation: Pair
    depth_multiplier: int
    use_bias: bool
    layer: int  # see `search.keras_import.graph.Call.layer`
    times: int = 1  # calls of the layer object in the model
    around: tuple[Pair, Pair] | None = None  # zeros that a layer before it adds: (top, bottom), (left, right)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A layer that was read; the layers of a residual are steps themselves."""

    layer: Layer
    origin: str  # "Conv2D conv2d_3"
    branch: tuple[Step, ...] = ()
    shortcut: tuple[Step, ...] = ()
    check: Check | None = None
    parts: tuple[Convolution, ...] = ()  # Keras' convolutions that the layer was made from


@dataclass(frozen=True, slots=True)
class Zeros:
    """A ZeroPadding2D."""

    origin: str
    around: tuple[Pair, Pair]


Item = Step | Convolution | Zeros


@dataclass(slots=True)
class Findings:
    """Remarks and problems collected while a model is read."""

    problems: list[Problem] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> layers
    read_as: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, where: str) -> None:
        """Record a layer that was dropped, with the reason, or of a kept layer an option, as `OPTION: reason`."""
        self.left_out.setdefault(reason, []).append(where)
