"""The parameters of a given network: the way back from an architecture to the point of a space that makes it.

So a known network can be tried first in a search, and a test can hold that nothing a space declares is out of reach.
"""

from __future__ import annotations

from typing import assert_never

from search.networks.architecture import Architecture, canonical
from search.spaces import pyramid_encoding as pyramid_encode
from search.spaces import residual_encoding as residual_encode
from search.spaces.domains import Value
from search.spaces.encoding import NotInSpace
from space import Fixed, Pyramid, ResidualStages, Space, parameters

__all__ = ["NotInSpace", "encode"]


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
