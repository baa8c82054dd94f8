"""What a given network needs of a space's parameters, collected while the network is read."""

from __future__ import annotations

from collections.abc import Callable

from search.spaces.domains import Domain, Value
from search.spaces.layout import Layout


class NotInSpace(ValueError):
    """The architecture is no point of the space: the message names the parameter and the value it does not take."""


class Needs:
    """Collects the value that each part of a network needs; a parameter that nothing needs keeps its domain's first."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.values: dict[str, Value] = {}

    def need(self, dimension: str, index: int, value: Value) -> None:
        """Take this value for the part of this index (from 0).

        Raises:
            NotInSpace: it is not declared, or another part of the net needs another one.
        """
        key, domain = self.domain(dimension, index)
        found = domain.find(value)
        if found is None:
            raise NotInSpace(f"{key}: {value} is not {domain}")
        if self.values.setdefault(key, found) != found:
            raise NotInSpace(f"{key}: {value} and {self.values[key]} in one net, and it is sampled once for the net")

    def need_such(self, dimension: str, indices: list[int], holds: Callable[[int, Value], bool], told: str) -> None:
        """Take the first declared value for which `holds(index, value)`, of each parameter for all of its parts.

        Raises:
            NotInSpace: there is none; says what is `told`.
        """
        parts: dict[str, list[int]] = {}
        for index in indices:
            parts.setdefault(self.domain(dimension, index)[0], []).append(index)
        for key, own in parts.items():
            declared = self.layout.domain(key).declared()
            found = next((value for value in declared if all(holds(index, value) for index in own)), None)
            if found is None:
                raise NotInSpace(f"{key}: {told}, which no value of {self.layout.domain(key)} makes")
            self.values[key] = found

    def domain(self, dimension: str, index: int) -> tuple[str, Domain]:
        """The parameter of a part, and the values that it may take.

        Raises:
            NotInSpace: the space has no such part.
        """
        keys = self.layout.keys[dimension]
        if index >= len(keys):
            raise NotInSpace(f"{dimension}: there are at most {len(keys)}")
        return keys[index], self.layout.domain(keys[index])

    def complete(self) -> dict[str, Value]:
        """A value for every sampled parameter."""
        return {name: self.values.get(name, domain.first) for name, domain in self.layout.sampled.items()}
