"""What a Keras model is read as, step by step, and what is noticed on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from search.keras_import.options import Pair
from search.networks.geometry import Resolved
from search.networks.layers import Layer, Padding

Check = Callable[[Resolved], tuple[str, str] | None]  # what is wrong with a layer in its place, and the edit


@dataclass(frozen=True, slots=True)
class Problem:
    """What these networks cannot hold, and the smallest edit that mends it."""

    where: str
    rule: str
    edit: str
    mended: bool = True  # reading went on as if the edit were made; else the layer was passed over


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A layer that was read; those inside a residual are steps themselves."""

    layer: Layer
    origin: str  # "Conv2D conv2d_3"
    branch: tuple[Step, ...] = ()
    shortcut: tuple[Step, ...] = ()
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution as Keras has it."""

    origin: str
    kind: Literal["depthwise", "separable", "plain"]
    filters: int  # 0 where depthwise
    kernel: Pair
    stride: Pair
    padding: Padding
    dilation: Pair
    depth_multiplier: int
    use_bias: bool
    around: tuple[Pair, Pair] | None = None  # zeros that a layer before it adds: (top, bottom), (left, right)
    weights: str = ""  # the name of what is called more than once
    times: int = 1


@dataclass(frozen=True, slots=True)
class Zeros:
    """A ZeroPadding2D."""

    origin: str
    around: tuple[Pair, Pair]


Item = Step | Convolution | Zeros


@dataclass(slots=True)
class Findings:
    """What is noticed while a model is read."""

    problems: list[Problem] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # by reason, the layers
    read_as: list[str] = field(default_factory=list)

    def leave_out(self, why: str, where: str) -> None:
        self.left_out.setdefault(why, []).append(where)
