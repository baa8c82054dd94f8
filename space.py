"""What can be built: the search space, its parameters, and the architecture that each choice of them makes.

Three kinds: a `Pyramid` is a plain stack of separable-convolution blocks, `ResidualStages` are stages of residual blocks at
falling resolution, `Fixed` holds networks that are given, so that a study can search the recipe alone. The parameters of a
space are static - the same names and ranges for every trial, a block beyond the depth is ignored - so that a sampler sees
one joint space.

`suggest` asks a trial for the parameters and builds the architecture; `space` finds those of a given one.
Edit the [space] table of a study file to search elsewhere: the dimensions are in `search.spaces`, the records of layers in
`search.networks.layers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, assert_never

from pydantic import BaseModel, BeforeValidator

from search.networks.architecture import Architecture, canonical
from search.spaces import fixed as given
from search.spaces import pyramid, residual
from search.spaces import pyramid_encoding as pyramid_encode
from search.spaces import residual_encoding as residual_encode
from search.spaces.domains import Domain, Trial, Value
from search.spaces.encoding import NotInSpace
from search.spaces.fixed import Fixed
from search.spaces.pyramid import Pyramid
from search.spaces.residual import ResidualStages

__all__ = [
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

Space = Pyramid | ResidualStages | Fixed

_RECORDS: dict[str, type[Pyramid] | type[ResidualStages] | type[Fixed]] = {
    "pyramid": Pyramid,
    "residual": ResidualStages,
    "fixed": Fixed,
}


class _Kind(BaseModel):
    kind: Literal["pyramid", "residual", "fixed"] = "pyramid"


def record_of(table: object) -> type[Pyramid] | type[ResidualStages] | type[Fixed]:
    """The record that a [space] table is read as: by its kind, a pyramid where it tells none."""
    kind = table.get("kind") if isinstance(table, Mapping) else None
    return _RECORDS.get(kind, Pyramid) if isinstance(kind, str) else Pyramid


def _read(raw: object) -> Space:
    if isinstance(raw, Space):
        return raw
    if isinstance(raw, Mapping):
        _Kind.model_validate(raw)  # tells of an unknown kind with those that there are
    return record_of(raw).model_validate(raw)


# Not pydantic's own union: that puts the kind into the place of a fault, `space.pyramid.width`.
AnySpace = Annotated[Space, BeforeValidator(_read)]


def parameters(space: Space) -> dict[str, Domain]:
    """The sampled parameters, by name, in a fixed order: the same for every trial."""
    match space:
        case Pyramid() | ResidualStages():
            return space.layout.sampled
        case Fixed():
            return {} if space.network.is_fixed else {"network": space.network}
        case _:
            assert_never(space)


def widths(space: Space) -> tuple[str, ...]:
    """The sampled parameters that are numbers of channels, in the order of the blocks or stages."""
    match space:
        case Pyramid() | ResidualStages():
            return space.layout.widths()
        case Fixed():
            return ()
        case _:
            assert_never(space)


def depths(space: Space) -> tuple[str, ...]:
    """The sampled parameters that are numbers of blocks or stages."""
    match space:
        case Pyramid() | ResidualStages():
            keys = (key for name in ("stages", "blocks", "uses") for key in space.layout.keys.get(name, ()))
            return tuple(key for key in dict.fromkeys(keys) if key in space.layout.sampled)
        case Fixed():
            return ()
        case _:
            assert_never(space)


def suggest(space: Space, trial: Trial, input_shape: tuple[int, int, int], classes: int) -> Architecture:
    """Ask the trial for every parameter of the space and build the architecture."""
    values = {name: domain.suggest(trial, name) for name, domain in parameters(space).items()}
    return build(space, values, input_shape, classes)


def build(space: Space, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
    """The architecture that the sampled parameters stand for; it may not fit its input, which resolving it tells.

    Raises:
        KeyError: a sampled parameter is missing.
        ArchitectureError: a given network is for other images.
    """
    match space:
        case Pyramid():
            return pyramid.build(space, values, input_shape, classes)
        case ResidualStages():
            return residual.build(space, values, input_shape, classes)
        case Fixed():
            return given.build(space, values, input_shape, classes)
        case _:
            assert_never(space)


def encode(space: Space, architecture: Architecture) -> dict[str, Value]:
    """The sampled parameters with which `build` gives this network back (in canonical form).

    Raises:
        NotInSpace: no parameters do; names the nearest reason found.
    """
    match space:
        case Pyramid():
            return pyramid_encode.encode(space, architecture)
        case ResidualStages():
            return residual_encode.encode(space, architecture)
        case Fixed():
            return _among_given(space, architecture)
        case _:
            assert_never(space)


def _among_given(space: Fixed, architecture: Architecture) -> dict[str, Value]:
    for name in space.network.values:
        if canonical(space.given(name)) == canonical(architecture):
            return dict.fromkeys(parameters(space), name)
    raise NotInSpace(f"network: not {space.network}")
