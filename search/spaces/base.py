"""The interface of a search space; a new kind is a class with these members and an entry in `space.KINDS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from search.networks.architecture import Architecture
from search.spaces.domains import Domain, Value


class NotInSpace(ValueError):
    """Raised where no parameters of a space give an architecture; names the parameter and the value it does not take."""


@runtime_checkable
class SearchSpace(Protocol):
    """A set of architectures with static parameters: the same names and ranges for every trial.

    Its classes are pydantic models, read from the [space] table of a study file.
    """

    @property
    def parameters(self) -> dict[str, Domain]:
        """Sampled parameters by name, in a fixed order."""

    @property
    def widths(self) -> tuple[str, ...]:
        """Sampled parameters that are numbers of channels, in the order of the layers."""

    @property
    def depths(self) -> tuple[str, ...]:
        """Sampled parameters that are numbers of blocks or stages."""

    def build(self, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
        """Build the architecture of these parameters; it may still be impossible for its input, which `resolve` checks.

        Raises:
            KeyError: a sampled parameter is missing.
            ArchitectureError: a given network is for other images.
        """

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        """Find the parameters from which `build` gives this architecture, up to canonical form.

        Raises:
            NotInSpace: there are none; the message gives the reason of the last attempt.
        """
