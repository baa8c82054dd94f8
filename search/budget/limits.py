"""Budget of a study: strict limits of costs, checked without building a model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from search.budget.cost import Cost
from search.budget.devices import check_device, memory_of
from search.budget.metrics import METRICS
from search.networks.architecture import Architecture
from search.networks.layers import Conv, walk

OVER_BUDGET = "over budget"  # rule broken by too many parameters or by a kind of layer that the budget excludes

_Limit = Annotated[int, Field(ge=1, le=10**15)]

if TYPE_CHECKING:
    _MetricLimits = BaseModel
else:
    _MetricLimits = create_model(
        "_MetricLimits",
        params=(_Limit, ...),  # these two for their place among the keys, see `Budget`
        separable_only=(bool, True),
        **{
            name: (_Limit | None, Field(default=None, description=f"{metric.description}: strictly under this number."))
            for name, metric in METRICS.items()
            if name != "params"
        },
    )


class Breach(NamedTuple):
    """A limit that a network does not meet: the short name of its rule, and the reason with both values."""

    rule: str
    reason: str


class FieldBounds(BaseModel):
    """Inclusive bounds of a receptive field in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    at_least: Annotated[int, Field(ge=1, le=10**6)] | None = Field(
        default=None, description="Smallest admitted receptive field in pixels."
    )
    at_most: Annotated[int, Field(ge=1, le=10**6)] | None = Field(
        default=None, description="Largest admitted receptive field in pixels."
    )

    @model_validator(mode="after")
    def _some(self) -> FieldBounds:
        low, high = self.at_least, self.at_most
        if low is None and high is None:
            raise ValueError("receptive_field: needs at_least or at_most")
        if low is not None and high is not None and low > high:
            raise ValueError(f"receptive_field: at_least must be up to at_most, not {low} and {high}")
        return self

    @property
    def descriptions(self) -> list[str]:
        """One phrase per bound, such as `a receptive field of at least 9`."""
        bounds = {"at least": self.at_least, "at most": self.at_most}
        return [f"a receptive field of {side} {bound}" for side, bound in bounds.items() if bound is not None]

    def breach(self, pixels: int | None) -> Breach | None:
        """The bound that a receptive field breaks; None if it breaks none, or if the network sees the whole image (None)."""
        if pixels is None:
            return None
        if self.at_least is not None and pixels < self.at_least:
            bound = f"at least {self.at_least}"
        elif self.at_most is not None and pixels > self.at_most:
            bound = f"at most {self.at_most}"
        else:
            return None
        return Breach("receptive field", f"a receptive field of {pixels} pixels, the budget asks for {bound}")


class Budget(_MetricLimits):
    """Strict upper limits of the metrics in `METRICS`, all of which apply: `params = 100_000` admits 99,999.

    `device` is a microcontroller by name, or the memory that it has for the network as "RAM/flash", such as "64KB/64KB": the
    arena must fit into the RAM and the file into the flash, equal sizes included (see `search.budget.devices`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    params: _Limit = Field(description="Parameters: every network must stay under this number.")
    separable_only: bool = Field(default=True, description="Admit separable convolutions only, no plain ones.")
    receptive_field: FieldBounds | None = Field(default=None, description="Bounds of the receptive field.")
    device: Annotated[str, AfterValidator(check_device)] | None = Field(
        default=None,
        description="A microcontroller by name, or its memory as RAM/flash such as 64KB/64KB: limits arena and file.",
    )

    @property
    def limits(self) -> Mapping[str, int]:
        """Strict upper limits by metric, those of the device included, in the order of `METRICS`."""
        return _limits(self.device, *(getattr(self, name) for name in METRICS))

    @property
    def is_plain(self) -> bool:
        """True if only parameters are limited."""
        return self.limits.keys() == {"params"} and self.receptive_field is None

    @property
    def is_monotone(self) -> bool:
        """True if any network that fits still fits with narrower layers."""
        return all(METRICS[name].is_monotone for name in self.limits)

    def bound(self, metric: str) -> str:
        """A limit in words: `under 100,000`, or `at most 65,536` where it is the device's memory."""
        limit = self.limits[metric]
        declared = getattr(self, metric)
        return f"under {limit:,}" if declared is not None and declared <= limit else f"at most {limit - 1:,}"

    @property
    def words(self) -> str:
        """`100,000 parameters`, and the other limits, to be read after "under"."""
        limits = [f"{self.bound(name).removeprefix('under ')} {METRICS[name].full_label}" for name in self.limits]
        if self.receptive_field is not None:
            limits += self.receptive_field.descriptions
        return " and ".join([", ".join(limits[:-1]), limits[-1]] if len(limits) > 1 else limits)

    def breach(self, architecture: Architecture, cost: Cost) -> Breach | None:
        """The first rule that the network breaks; None if it fits.

        Args:
            cost: of this architecture.
        """
        if self.separable_only and any(isinstance(layer, Conv) for layer in walk(architecture.layers)):
            return Breach(OVER_BUDGET, "contains a plain convolution, and the budget admits separable convolutions only")
        if self.receptive_field is not None:
            breach = self.receptive_field.breach(cost.receptive_field)
            if breach is not None:
                return breach
        for name, limit in self.limits.items():
            value = METRICS[name].compute(cost)
            if value >= limit:
                return Breach(_rule(name), f"{value:,} {METRICS[name].full_label}, the budget is {self.bound(name)}")
        return None

    def file_breach(self, costs: Mapping[str, int]) -> Breach | None:
        """The first limit that a real int8 file breaks; None if it fits.

        Args:
            costs: measured ones, by metric.
        """
        for name, limit in self.limits.items():
            if name in costs and costs[name] >= limit:
                label = METRICS[name].full_label
                return Breach(
                    _rule(name), f"the trained network takes {costs[name]:,} {label}, the budget is {self.bound(name)}"
                )
        return None


def _rule(metric: str) -> str:
    """Short name of the rule that limits a metric, under which rejected proposals are counted."""
    return OVER_BUDGET if metric == "params" else f"over {metric.removesuffix('_bytes').replace('_', ' ')}"


@lru_cache(maxsize=64)
def _limits(device: str | None, *limits: int | None) -> Mapping[str, int]:
    declared = dict(zip(METRICS, limits, strict=True))
    if device is not None:
        ram, flash = memory_of(device)
        memory = {"ram": ram, "flash": flash}
        for name, metric in METRICS.items():
            if metric.memory is not None:
                limit = memory[metric.memory] + 1  # limits are strict, and a full memory is admitted
                declared[name] = min(limit, declared[name] or limit)
    return {name: limit for name, limit in declared.items() if limit is not None}
