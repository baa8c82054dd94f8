"""Domains of searched parameters: choices or ranges, as the space and the recipe of a study file declare them.

A study file writes a value (fixed), a list (choices) or `{ low, high, step, log }` (range).
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BeforeValidator

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = int | float | str | bool
Per = Literal["net", "block", "pool", "stage"]

CLOSE = 1e-9  # values nearer than this are equal, such as 0.15 and 0.15000000000000002


class Trial(Protocol):
    """The part of an Optuna trial that a domain needs."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Choices:
    """A few values in no order; a single value is fixed and never sampled."""

    values: tuple[Value, ...]

    @property
    def is_fixed(self) -> bool:
        return len(self.values) == 1

    @property
    def first(self) -> Value:
        return self.values[0]

    @property
    def count(self) -> int | None:
        """Number of values."""
        return len(self.values)

    def declared(self) -> Iterator[Value]:
        """Every value, in the order of the study file."""
        return iter(self.values)

    def distribution(self) -> BaseDistribution:
        """The Optuna distribution that `suggest` samples from."""
        from optuna.distributions import (
            CategoricalDistribution,
        )  # here, as it takes half a second and only a search needs it

        return CategoricalDistribution(self.values)

    def suggest(self, trial: Trial, name: str) -> Value:
        value: Value = trial.suggest_categorical(name, self.values)
        return value

    def draw(self, generator: random.Random) -> Value:
        return generator.choice(self.values)

    def find(self, value: Value) -> Value | None:
        """The declared value that equals `value`, or None."""
        return next((own for own in self.values if own == value), None)

    def at(self, index: int) -> float:
        """The value of an index in ascending order, the lowest at 0."""
        return self._ascending[index]

    def index(self, limit: float) -> int:
        """The index of the largest value up to `limit` (to a billionth); 0 if all are above it."""
        return max(bisect_right(self._ascending, limit + CLOSE) - 1, 0)

    def at_most(self, limit: float) -> float:
        """The largest value up to `limit` (to a billionth), or the lowest if all are above it.

        Raises:
            TypeError: the values are no numbers.
        """
        return self.at(self.index(limit))

    @property
    def _ascending(self) -> list[float]:
        numbers = [value for value in self.values if not isinstance(value, str | bool)]
        if len(numbers) < len(self.values):
            raise TypeError(f"{self}: only numbers have an order")
        return sorted(numbers)

    def plain(self) -> Any:
        """The value of the key in a study file."""
        return self.first if self.is_fixed else list(self.values)

    def __str__(self) -> str:
        return "one of " + ", ".join(str(value) for value in self.values)


@dataclass(frozen=True, slots=True)
class Range:
    """Integers or fractions from low to high, both included; a range without a step is continuous."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def is_fixed(self) -> bool:
        return False

    @property
    def first(self) -> Value:
        return self.low

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)

    @property
    def size(self) -> int:
        """Number of values of a stepped range."""
        assert self.step is not None
        return round((self.high - self.low) / self.step) + 1

    @property
    def count(self) -> int | None:
        """Number of values, None for a continuous range."""
        return None if self.step is None else self.size

    def declared(self) -> Iterator[Value]:
        """Every value of a stepped range, the lowest first."""
        return (self.at(index) for index in range(self.size))

    def distribution(self) -> BaseDistribution:
        """The Optuna distribution that `suggest` samples from."""
        from optuna.distributions import FloatDistribution, IntDistribution  # here, as in Choices

        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    def suggest(self, trial: Trial, name: str) -> Value:
        if self.is_whole:
            return trial.suggest_int(name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        value = trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)
        return round(value, 10) if self.step else value  # 0.15, where Optuna computes 0.15000000000000002

    def draw(self, generator: random.Random) -> Value:
        if self.step is not None and not self.log:
            return self.at(generator.randrange(self.size))
        if self.log:
            value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
            return round(value) if self.is_whole else value
        return generator.uniform(self.low, self.high)

    def find(self, value: Value) -> Value | None:
        """The declared value that equals `value` (to ten decimals), or None."""
        if isinstance(value, str | bool) or not math.isfinite(value):
            return None
        if self.step is None:
            return value if self.low <= value <= self.high else None
        nearest = self.at(round((value - self.low) / self.step))
        return nearest if abs(nearest - value) < CLOSE and self.low <= nearest <= self.high else None

    def at(self, index: int) -> float:
        """The value of an index of a stepped range, the lowest at 0."""
        assert self.step is not None
        return self.low + index * self.step if self.is_whole else round(self.low + index * self.step, 10)

    def index(self, limit: float) -> int:
        """The index of the largest value up to `limit` (to a billionth of a step); 0 if all are above it."""
        assert self.step is not None
        return math.floor((min(max(limit, self.low), self.high) - self.low) / self.step + CLOSE)

    def at_most(self, limit: float) -> float:
        """The largest value up to `limit` (to a billionth of a step), or the lowest if all are above it."""
        return self.at(self.index(limit)) if self.step is not None else float(min(max(limit, self.low), self.high))

    def plain(self) -> Any:
        """The value of the key in a study file."""
        given = {"low": self.low, "high": self.high, "step": self.step, "log": self.log or None}
        return {key: value for key, value in given.items() if value is not None and not (self.log and key == "step")}

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step else "")


Domain = Choices | Range


def parse_domain(raw: object, check: Callable[[Any], Value]) -> Domain:
    """Parse the value, list or range of a study file; `check` returns a value or raises.

    Raises:
        ValueError: a rule is broken; gives the rule and the value.
    """
    if isinstance(raw, list | tuple):
        if not raw:
            raise ValueError("an empty list has no value to choose")
        values = tuple(check(value) for value in raw)
        if len(set(values)) < len(values):
            raise ValueError(f"{list(raw)} names a value twice")
        return Choices(values)
    if isinstance(raw, dict):
        return _parse_range(raw, check)
    return Choices((check(raw),))


def _parse_range(raw: dict[str, Any], check: Callable[[Any], Value]) -> Range:
    if unknown := sorted(raw.keys() - {"low", "high", "step", "log"}):
        raise ValueError(f"unknown key {unknown[0]!r} in a range (low, high, step, log)")
    if missing := [key for key in ("low", "high") if key not in raw]:
        raise ValueError(f"a range needs {missing[0]!r}")
    low, high = check(raw["low"]), check(raw["high"])
    if isinstance(low, str | bool) or isinstance(high, str | bool):
        raise ValueError("has no order, so it takes a list of choices and no range")
    step, log = raw.get("step"), raw.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"log must be true or false, not {log!r}")
    whole = isinstance(low, int) and isinstance(high, int) and (step is None or isinstance(step, int))
    if low >= high:
        raise ValueError(f"low must be below high, not {low} and {high}")
    if log and low <= 0:
        raise ValueError(f"log needs a low above 0, not {low}")
    if step is None:
        return Range(low, high, 1 if whole else None, log)
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step <= (high - low) * (1 + 1e-9):
        raise ValueError(f"step must be above 0 and at most high - low, not {step!r}")
    if not whole and isinstance(low, int) and isinstance(high, int):
        raise ValueError(f"step must be a whole number, not {step!r}")
    if not whole and round(step, 10) != step:
        raise ValueError(f"step must have at most ten decimals, not {step!r}")
    if log:
        raise ValueError("a range takes a step or log = true, not both")
    if abs((high - low) / step - round((high - low) / step)) > 1e-9:
        raise ValueError(f"steps of {step} from {low} do not reach {high}: the top of a range must be a value of it")
    return Range(low, high, step, False) if whole else Range(float(low), float(high), float(step), False)


# --- dimensions: a domain for the net, or one for each of its parts --------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dimension:
    """One entry of the [space] table: one domain for the whole net, or one for each block, pool or stage."""

    domains: tuple[Domain, ...]
    per: Per
    each: bool = False  # True if there is one domain for each block, pool or stage

    def domain(self, index: int) -> Domain:
        return self.domains[index if self.each else 0]

    def plain(self) -> Any:
        """The value of the key in a study file."""
        if self.each:
            return {"each": [domain.plain() for domain in self.domains]}
        domain = self.domains[0]
        if domain.is_fixed:
            return domain.plain()
        return {**({"choices": domain.plain()} if isinstance(domain, Choices) else domain.plain()), "per": self.per}

    @property
    def values(self) -> Iterator[Value]:
        """The ends of every range and all choices."""
        for domain in self.domains:
            yield from domain.values if isinstance(domain, Choices) else (domain.low, domain.high)


def dimension(check: Callable[[Any], Value], per: Per, default: Per | None = None) -> BeforeValidator:
    """Validator of a dimension: value, list, range, `{ choices = [...], per = "block" }` or `{ each = [...] }`.

    Args:
        per: the parts that it can be sampled for, besides the whole network.
        default: the parts that it is sampled for if it does not say; `per` if None.
    """

    def parse(raw: object) -> Dimension:
        if isinstance(raw, Dimension):
            return raw
        if not isinstance(raw, dict):
            domain = parse_domain(raw, check)
            return Dimension((domain,), "net" if domain.is_fixed else default or per)
        rest = dict(raw)
        if "each" in rest:
            if rest.keys() != {"each"} or per == "net" or not isinstance(rest["each"], list) or not rest["each"]:
                raise ValueError('"each" takes a list with one entry for each block (pool, stage), and stands alone')
            return Dimension(tuple(parse_domain(entry, check) for entry in rest["each"]), per, True)
        wanted = rest.pop("per", default or per)
        if wanted not in ("net", per):
            raise ValueError(f"per must be {' or '.join(sorted({'net', per}))}, not {wanted!r}")
        if "choices" in rest:
            choices = rest.pop("choices")
            if rest or not isinstance(choices, list):
                raise ValueError('"choices" takes a list, and only "per" beside it')
            return Dimension((parse_domain(choices, check),), wanted)
        return Dimension((parse_domain(rest, check),), wanted)

    return BeforeValidator(parse)


def whole(low: int, high: int) -> Callable[[Any], Value]:
    def check(value: Any) -> Value:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {value!r}")
        return value

    return check


def fraction(value: Any) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"must be at least 0 and below 1, not {value!r}")
    return float(value)


def one_of(known: tuple[Value, ...]) -> Callable[[Any], Value]:
    def check(value: Any) -> Value:
        if value not in known or isinstance(value, bool) != isinstance(known[0], bool):
            raise ValueError(f"must be one of {', '.join(str(one).lower() for one in known)}, not {value!r}")
        own: Value = value
        return own

    return check


def fixed(value: Value) -> Dimension:
    return Dimension((Choices((value,)),), "net")
