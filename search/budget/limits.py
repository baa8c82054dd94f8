"""The budget of a study: strict limits, all of them found without building a model, and which one a network breaks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from search.budget.cost import Price
from search.budget.devices import checked, memory_of
from search.networks.architecture import Architecture
from search.networks.layers import Conv, walk

OVER = "over budget"  # the rule that a network of too many parameters, or of a layer that is not admitted, breaks
WORDS = {  # what is limited, in the order in which it is looked at: what is found fast first
    "params": "parameters",
    "macs": "multiply-adds",
    "flash_bytes": "bytes of flash in int8",
    "peak_activation_bytes": "bytes of activations at once in int8",
    "arena_bytes": "bytes of arena in int8",
}

_Limit = Annotated[int, Field(ge=1, le=10**15)]


class Breach(NamedTuple):
    """A rule of the budget that a network breaks."""

    rule: str
    reason: str


class FieldBounds(BaseModel):
    """Bounds of a receptive field in pixels, both included."""

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

    def breach(self, found: int | None) -> Breach | None:
        """How a network's receptive field lies outside; one that has none sees the whole image."""
        if self.at_least is not None and found is not None and found < self.at_least:
            return Breach(
                "receptive field", f"a receptive field of {found} pixels, the budget asks for at least {self.at_least}"
            )
        if self.at_most is not None and found is not None and found > self.at_most:
            return Breach(
                "receptive field", f"a receptive field of {found} pixels, the budget asks for at most {self.at_most}"
            )
        return None


class Budget(BaseModel):
    """Strict limits that hold together: `params = 100_000` means that 99,999 fits and 100,000 does not.

    `device` is a microcontroller by name, or the memory that it has for the network as "RAM/flash", such as "64KB/64KB": the
    arena is to fit into the one and the file into the other, full to the last byte (see `search.budget.devices`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    params: _Limit = Field(description="Parameters: every network must stay under this number.")
    separable_only: bool = Field(default=True, description="Admit separable convolutions only, no plain ones.")
    macs: _Limit | None = Field(default=None, description="Multiply-adds of one image: strictly under this number.")
    flash_bytes: _Limit | None = Field(default=None, description="Bytes of the int8 model file: strictly under this number.")
    peak_activation_bytes: _Limit | None = Field(
        default=None, description="Largest sum in bytes of int8 activations alive at once: strictly under this number."
    )
    arena_bytes: _Limit | None = Field(
        default=None, description="Bytes of the int8 interpreter's arena: strictly under this number."
    )
    receptive_field: FieldBounds | None = Field(default=None, description="Bounds of the receptive field.")
    device: Annotated[str, AfterValidator(checked)] | None = Field(
        default=None,
        description="A microcontroller by name, or its memory as RAM/flash such as 64KB/64KB: limits arena and file.",
    )

    @property
    def limits(self) -> Mapping[str, int]:
        """The limits by what they limit, the device's among them."""
        return _limits(self.device, *(getattr(self, name) for name in WORDS))

    @property
    def is_plain(self) -> bool:
        """Whether parameters are all that is limited."""
        return self.limits.keys() == {"params"} and self.receptive_field is None

    @property
    def words(self) -> str:
        """`100,000 parameters`, and the other limits."""
        told = [f"{limit:,} {WORDS[name]}" for name, limit in self.limits.items()]
        field = self.receptive_field
        for side in ("at_least", "at_most"):
            if field is not None and (bound := getattr(field, side)) is not None:
                told.append(f"a receptive field of {side.replace('_', ' ')} {bound}")
        return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)

    def breach(self, architecture: Architecture, price: Price) -> Breach | None:
        """The first rule that the network breaks, or None where it is admitted."""
        if self.separable_only and any(isinstance(layer, Conv) for layer in walk(architecture.layers)):
            return Breach(OVER, "holds a plain convolution, and the budget admits separable convolutions only")
        if self.receptive_field is not None and (found := self.receptive_field.breach(price.receptive_field)):
            return found
        for name, limit in self.limits.items():
            value = getattr(price, name)
            if value >= limit:
                rule = OVER if name == "params" else f"over {name.removesuffix('_bytes').replace('_', ' ')}"
                return Breach(rule, f"{value:,} {WORDS[name]}, the budget is under {limit:,}")
        return None

    def refusal(self, architecture: Architecture, price: Price) -> str | None:
        """Why the network is not admitted, or None where it is."""
        found = self.breach(architecture, price)
        return found.reason if found else None


@lru_cache(maxsize=64)
def _limits(device: str | None, *limits: int | None) -> Mapping[str, int]:
    given = dict(zip(WORDS, limits, strict=True))
    if device is not None:
        ram, flash = memory_of(device)
        for name, most in (("arena_bytes", ram + 1), ("flash_bytes", flash + 1)):
            given[name] = min(most, given[name] or most)
    return {name: limit for name, limit in given.items() if limit is not None}
