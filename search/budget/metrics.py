"""Registry of the costs that a study can limit, minimise and report.

A new cost metric is one entry here and its function: from `METRICS` come the keys of `[budget]` and of
`[search] directions`, the constraints, stored attributes, `--pareto`, the axes of figures and the columns of tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from search.budget.cost import Cost


@dataclass(frozen=True, slots=True)
class Metric:
    """A cost of a network, the less the better.

    Attributes:
        name: its key in study files, stored attributes and JSON.
        description: noun phrase for the reference of study files.
        label: plural noun for text after a number, such as `multiply-adds`.
        compute: its value for one network.
        is_int8: True if it is of the int8 file; such a cost takes longer to compute and is stored only on request.
        per: what the value is of, where an axis has to say so, such as `image`.
        memory: memory of a microcontroller that bounds it, see `search.budget.devices`.
        is_monotone: True if wider layers never make it smaller.
    """

    name: str
    description: str
    label: str
    compute: Callable[[Cost], int]
    is_int8: bool = False
    per: str = ""
    memory: Literal["ram", "flash"] | None = None
    is_monotone: bool = True

    @property
    def full_label(self) -> str:
        """The label, with the form of the network that is measured."""
        return f"{self.label} in int8" if self.is_int8 else self.label

    @property
    def axis(self) -> str:
        """Title of an axis."""
        return f"{self.full_label} per {self.per}" if self.per else self.full_label


_ENTRIES = (  # in the order in which limits are checked: the fastest to compute first
    Metric("params", "Parameters", "parameters", lambda cost: cost.params),
    Metric("macs", "Multiply-adds of one image", "multiply-adds", lambda cost: cost.macs, per="image"),
    Metric(
        "flash_bytes",
        "Bytes of the int8 model file",
        "bytes of flash",
        lambda cost: cost.flash_bytes,
        is_int8=True,
        memory="flash",
        is_monotone=False,  # layers of equal width share constants
    ),
    Metric(
        "peak_activation_bytes",
        "Largest sum in bytes of int8 activations alive at once",
        "bytes of activations at once",
        lambda cost: cost.peak_activation_bytes,
        is_int8=True,
    ),
    Metric(
        "arena_bytes",
        "Bytes of the int8 interpreter's arena",
        "bytes of arena",
        lambda cost: cost.arena_bytes,
        is_int8=True,
        memory="ram",
        is_monotone=False,  # another order of sizes may leave fewer gaps
    ),
)
METRICS = {metric.name: metric for metric in _ENTRIES}
ALWAYS_STORED = tuple(metric.name for metric in _ENTRIES if not metric.is_int8)
"""Metrics stored with every trial, whatever its study limits or minimises."""
