"""The search space: its parameters, and the architecture of each choice of values.

Three kinds: a `Pyramid` is a plain stack of separable convolutions, `ResidualStages` are stages of residual blocks at
falling resolution, `Fixed` is a list of given networks, so that a study can search the recipe alone. The parameters of a
space are static: the same names and ranges for every trial, with a block beyond the depth ignored, so that a sampler sees
one joint space.

`suggest` asks a trial for the parameters and builds the architecture; `encode` finds the parameters of a given architecture.
Edit the [space] table of a study file to search elsewhere. To add a kind, write a class with the members of
`search.spaces.base.SearchSpace` and enter it in `KINDS`; or name it in the study file, `kind = "cells.py:Cells"`, see
`search.spaces.own`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, PlainSerializer, PlainValidator, SerializationInfo, field_validator
from pydantic_core import PydanticCustomError

from search.networks.architecture import Architecture
from search.spaces import own
from search.spaces.base import NotInSpace, SearchSpace
from search.spaces.domains import Domain, Trial, Value
from search.spaces.fixed import Fixed
from search.spaces.pyramid import Pyramid
from search.spaces.residual import ResidualStages

__all__ = [
    "KINDS",
    "AnySpace",
    "Fixed",
    "NotInSpace",
    "Pyramid",
    "ResidualStages",
    "Space",
    "build",
    "depths",
    "encode",
    "parameters",
    "record_of",
    "suggest",
    "widths",
]

Space = SearchSpace

KINDS: dict[str, type[BaseModel]] = {"pyramid": Pyramid, "residual": ResidualStages, "fixed": Fixed}


class _Table(BaseModel):
    """The `kind` of a [space] table."""

    kind: object = "pyramid"

    @field_validator("kind")
    @classmethod
    def _is_known(cls, value: object) -> object:
        if own.is_own(value) or (isinstance(value, str) and value in KINDS):
            return value
        *others, last = [*map(repr, KINDS), "'FILE.py:CLASS'"]
        raise PydanticCustomError(
            "literal_error", "Input should be {expected}", {"expected": f"{', '.join(others)} or {last}"}
        )


def record_of(table: object) -> type[BaseModel]:
    """The class that a [space] table is read as, by its kind; a pyramid if that is missing or unknown.

    Raises:
        ValueError: the kind names a file that cannot be used.
    """
    kind = table.get("kind") if isinstance(table, Mapping) else None
    if isinstance(kind, str) and own.is_own(kind):
        return own.load(kind)
    return KINDS.get(kind, Pyramid) if isinstance(kind, str) else Pyramid


def _read(raw: object) -> object:
    if isinstance(raw, BaseModel) and (isinstance(raw, tuple(KINDS.values())) or own.kind_of(raw)):
        return raw
    if isinstance(raw, Mapping):
        _Table.model_validate(raw)
        if own.is_own(raw.get("kind")):
            return record_of(raw).model_validate({key: value for key, value in raw.items() if key != "kind"})
    return record_of(raw).model_validate(raw)


def _write(space: BaseModel, info: SerializationInfo) -> dict[str, Any]:
    kind = own.kind_of(space)
    return ({} if kind is None else {"kind": kind}) | space.model_dump(mode=info.mode)


# Not a pydantic union, which puts the kind into the location of an error: `space.pyramid.width`.
AnySpace = Annotated[SearchSpace, PlainValidator(_read), PlainSerializer(_write)]


def parameters(space: Space) -> dict[str, Domain]:
    """The sampled parameters by name, in a fixed order: the same for every trial."""
    return space.parameters


def widths(space: Space) -> tuple[str, ...]:
    """The sampled parameters that are numbers of channels, in the order of the blocks or stages."""
    return space.widths


def depths(space: Space) -> tuple[str, ...]:
    """The sampled parameters that are numbers of blocks or stages."""
    return space.depths


def suggest(space: Space, trial: Trial, input_shape: tuple[int, int, int], classes: int) -> Architecture:
    """Ask a trial for every parameter of the space and build the architecture."""
    values = {name: domain.suggest(trial, name) for name, domain in space.parameters.items()}
    return space.build(values, input_shape, classes)


def build(space: Space, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
    """Build the architecture of these parameters; see `SearchSpace.build`."""
    return space.build(values, input_shape, classes)


def encode(space: Space, architecture: Architecture) -> dict[str, Value]:
    """Find the parameters of an architecture; see `SearchSpace.encode`."""
    return space.encode(architecture)
