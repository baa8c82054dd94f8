"""Parameter names of a space's dimensions, and the collector of values that a given network needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from search.spaces.base import NotInSpace
from search.spaces.domains import Choices, Dimension, Domain, Value


@dataclass(frozen=True)
class Layout:
    """Parameter names `keys[dimension][index]`, the domains of those sampled, and the values of those fixed."""

    keys: dict[str, tuple[str, ...]]
    sampled: dict[str, Domain]
    fixed: dict[str, Value]

    def domain(self, key: str) -> Domain:
        """The domain of a parameter; that of a fixed one holds a single value."""
        return self.sampled.get(key) or Choices((self.fixed[key],))

    def sampled_keys(self, *dimensions: str) -> tuple[str, ...]:
        """The sampled parameters of these dimensions, each once, in order."""
        keys = dict.fromkeys(key for name in dimensions for key in self.keys.get(name, ()))
        return tuple(key for key in keys if key in self.sampled)


class Parts(NamedTuple):
    """A dimension, and the numbers of the parts (blocks, pools, stages) that it may be sampled for."""

    dimension: Dimension
    numbers: Sequence[int]


def layout_of(dimensions: Mapping[str, Parts]) -> Layout:
    """Name the parameters: `width_1`, `width_2`, ... for each of several parts, `width` for the whole network."""
    keys: dict[str, tuple[str, ...]] = {}
    domains: dict[str, Domain] = {}
    for name, (dimension, numbers) in dimensions.items():
        if dimension.per == "net":
            keys[name] = (name,) * max(len(numbers), 1)
            domains[name] = dimension.domain(0)
        else:
            keys[name] = tuple(f"{name}_{number}" for number in numbers)
            domains.update({key: dimension.domain(index) for index, key in enumerate(keys[name])})
    sampled = {key: domain for key, domain in domains.items() if not domain.is_fixed}
    return Layout(keys, sampled, {key: domain.first for key, domain in domains.items() if domain.is_fixed})


class ValueCollector:
    """Collects the parameter values that each part of a given network needs; all others keep their domain's first."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.values: dict[str, Value] = {}

    def need(self, dimension: str, index: int, value: Value) -> None:
        """Set the value of a dimension for the part of this index (from 0).

        Raises:
            NotInSpace: the value is not declared, or another part of the network needs another one.
        """
        key, domain = self.domain(dimension, index)
        declared = domain.find(value)
        if declared is None:
            raise NotInSpace(f"{key}: {value} is not {domain}")
        if self.values.setdefault(key, declared) != declared:
            raise NotInSpace(f"{key}: {value} and {self.values[key]} in one net, and it is sampled once for the net")

    def need_first(self, dimension: str, accepts: Mapping[int, Callable[[Value], bool]], need: str) -> None:
        """Set each parameter of a dimension to its first declared value that all of its parts accept.

        Args:
            accepts: by the index of a part.
            need: described in the error message.

        Raises:
            NotInSpace: there is none.
        """
        parts: dict[str, list[Callable[[Value], bool]]] = {}
        for index, accept in accepts.items():
            parts.setdefault(self.domain(dimension, index)[0], []).append(accept)
        for key, own in parts.items():
            domain = self.layout.domain(key)
            value = next((value for value in domain.declared() if all(accept(value) for accept in own)), None)
            if value is None:
                raise NotInSpace(f"{key}: {need}, which no value of {domain} makes")
            self.values[key] = value

    def domain(self, dimension: str, index: int) -> tuple[str, Domain]:
        """The parameter name and the domain of a part.

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
