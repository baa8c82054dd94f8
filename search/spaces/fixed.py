"""Networks that are given, as a space: for a study that searches the recipe alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, field_serializer, model_validator

from search.errors import UserError, nearest
from search.networks.architecture import Architecture, canonical, from_json
from search.networks.layers import ArchitectureError, BatchNorm, Layer, Residual
from search.spaces.base import NotInSpace
from search.spaces.domains import Choices, Domain, Value, parse_domain
from search.text import format_shape


def _network_names(raw: object) -> Domain:
    def check(value: Any) -> Value:
        if not isinstance(value, str) or not value:
            raise ValueError(f'must be the name of a network, such as "eip-c", not {value!r}')
        return value

    if isinstance(raw, Mapping):
        raise ValueError(f'takes a name or a list of names, such as ["eip-c", "eip-d"], not {dict(raw)!r}')
    return raw if isinstance(raw, Choices) else parse_domain(raw, check)


class Fixed(BaseModel):
    """A network that is given, or several to choose from by name, for a study that searches the recipe alone.

    `networks` holds each of them as `search.networks.architecture.to_dict` writes it, so that a stored configuration needs
    no other file. It is left out of a study file, and filled in where that is read. `momentum` is that of every batch
    norm, instead of the networks' own: the averages of one at 0.99 lag behind a run of a few hundred steps, which then
    ranks the lag.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["fixed"] = Field(default="fixed", description="Networks that are given, to search the recipe alone.")
    network: Annotated[Choices, BeforeValidator(_network_names)] = Field(
        description="Name of a reference or path of an architecture file, or a list of them."
    )
    networks: dict[str, dict[str, JsonValue]] = Field(
        default={}, description="The networks themselves, by name; filled in when the study file is read, left out of it."
    )
    momentum: Annotated[float, Field(ge=0, lt=1, strict=True)] | None = Field(
        default=None, description="Momentum of every batch normalisation, instead of the networks' own."
    )

    @field_serializer("network")
    def _plain(self, value: Choices) -> Any:
        return value.plain()

    @model_validator(mode="after")
    def _consistent(self) -> Fixed:
        missing = [str(name) for name in self.network.values if self.networks and name not in self.networks]
        if missing:
            raise ValueError(f"network: no {missing[0]!r} among the networks given, {nearest(missing[0], self.networks)}")
        _ = self.architectures  # raises for an invalid one
        return self

    @cached_property
    def architectures(self) -> dict[str, Architecture]:
        """The networks by name.

        Raises:
            ValueError: one of them is no architecture.
        """
        return {name: _architecture(name, plain) for name, plain in self.networks.items()}

    def given(self, name: Value) -> Architecture:
        """The network of this name.

        Raises:
            ValueError: it has not been filled in.
        """
        if name not in self.architectures:
            raise ValueError(f"networks: {name!r} is not there; they are filled in where a study file is read")
        found = self.architectures[str(name)]
        return found if self.momentum is None else replace(found, layers=_with_momentum(found.layers, self.momentum))

    @property
    def parameters(self) -> dict[str, Domain]:
        """The name of the network, if there are several."""
        return {} if self.network.is_fixed else {"network": self.network}

    @property
    def widths(self) -> tuple[str, ...]:
        """None: the networks are fixed."""
        return ()

    @property
    def depths(self) -> tuple[str, ...]:
        """None: the networks are fixed."""
        return ()

    def build(self, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
        """Return the network of the name among the values.

        Raises:
            KeyError: several are given, and no name.
            ArchitectureError: it is for other images.
        """
        name = self.network.first if self.network.is_fixed else values["network"]
        network = self.given(name)
        if (network.input, network.classes) != (input_shape, classes):
            needed, present = (format_shape(shape) for shape in (network.input, input_shape))
            raise ArchitectureError(
                f"takes images of {needed} in {network.classes} classes, not {present} in {classes}", str(name)
            )
        return network

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        """Find the name of the network that equals this one in canonical form.

        Raises:
            NotInSpace: there is none.
        """
        for name in self.network.values:
            if canonical(self.given(name)) == canonical(architecture):
                return dict.fromkeys(self.parameters, name)
        raise NotInSpace(f"network: not {self.network}")


def _with_momentum(layers: tuple[Layer, ...], momentum: float) -> tuple[Layer, ...]:
    def changed(layer: Layer) -> Layer:
        if isinstance(layer, Residual):
            return Residual(_with_momentum(layer.branch, momentum), _with_momentum(layer.shortcut, momentum))
        return replace(layer, momentum=momentum) if isinstance(layer, BatchNorm) else layer

    return tuple(map(changed, layers))


def _architecture(name: str, plain: Mapping[str, JsonValue]) -> Architecture:
    try:
        return from_json(json.dumps(plain))
    except UserError as error:
        problem = str(error).removeprefix("architecture: ").removeprefix("file: ")
        raise ValueError(f"networks.{name}: {problem}") from None
