"""Where the value of every dimension of a space is found: the names of its parameters, sampled and fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from search.spaces.domains import Choices, Dimension, Domain, Value


@dataclass(frozen=True)
class Layout:
    """The names of a space's parameters: `keys[dimension][index]`, the sampled domains, and the fixed values."""

    keys: dict[str, tuple[str, ...]]
    sampled: dict[str, Domain]
    fixed: dict[str, Value]

    def domain(self, key: str) -> Domain:
        """The values that a parameter may take, a fixed one its only."""
        return self.sampled.get(key) or Choices((self.fixed[key],))

    def widths(self) -> tuple[str, ...]:
        """The sampled parameters of the dimension `width`."""
        return tuple(name for name in dict.fromkeys(self.keys["width"]) if name in self.sampled)


class Parts(NamedTuple):
    """A dimension, and the numbers of the parts (blocks, pools, stages) that it may be sampled for."""

    dimension: Dimension
    numbers: Sequence[int]


def layout_of(dimensions: Mapping[str, Parts]) -> Layout:
    """`width` sampled for each of three parts is called `width_1`, `width_2`, `width_3`; for the net, `width`."""
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
