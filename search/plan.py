"""What a space holds, found by drawing from it: whether any of its networks fits a budget at all."""

from __future__ import annotations

import random

from search.architecture import Architecture, ArchitectureError
from search.cost import Budget, price
from search.domain import Choices, Domain, Value
from search.errors import UserError
from space import Space, build, parameters

DRAWS = 2000


def smallest(space: Space, input_shape: tuple[int, int, int], classes: int) -> tuple[Architecture, int] | None:
    """The smallest network found in the space and its parameters; None where no draw can exist on this input.

    Widths are at their lowest, the rest is drawn; every other draw also takes the lowest depth.
    """
    generator = random.Random(0)
    found: tuple[Architecture, int] | None = None
    for number in range(DRAWS):
        values = {name: domain.draw(generator) for name, domain in parameters(space).items()}
        floors = ("width", "blocks") if number % 2 else ("width",)
        values |= {name: _lowest(domain) for name, domain in parameters(space).items() if name.startswith(floors)}
        architecture = build(space, values, input_shape, classes)
        try:
            params = price(architecture).params
        except ArchitectureError:
            continue
        if found is None or params < found[1]:
            found = architecture, params
    return found


def check(space: Space, budget: Budget, input_shape: tuple[int, int, int], classes: int) -> None:
    """Refuse a study that could train nothing.

    Raises:
        UserError: no network of the space fits the budget, or its input.
    """
    found = smallest(space, input_shape, classes)
    if found is None:
        shape = "x".join(map(str, input_shape))
        raise UserError(f"space: none of its networks fits images of {shape}; take fewer pools or strides, or padding same")
    if found[1] >= budget.params:
        raise UserError(
            f"budget.params: {budget.params:,} is out of reach, the smallest network found in the space has {found[1]:,}; "
            f"ask for at least {found[1] + 1:,}, or lower the widths or blocks of the space"
        )


def _lowest(domain: Domain) -> Value:
    return min(domain.values) if isinstance(domain, Choices) else domain.low
