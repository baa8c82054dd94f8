"""Checked access to the options of a Keras layer, which come from a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from search.errors import reason
from search.networks.layers import Padding

Pair = tuple[int, int]


class Unfit(ValueError):
    """An option that no architecture can hold: the rule that it breaks, and the edit that mends it."""

    def __init__(self, rule: str, edit: str) -> None:
        super().__init__(rule)
        self.rule, self.edit = rule, edit


class Options:
    """Options of a layer; each method raises `Unfit` where a value has another type than it asks for."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def value(self, key: str, default: Any = None) -> Any:
        value = self._config.get(key, default)
        if isinstance(value, dict) and isinstance(value.get("items"), list):  # {"class_name": "__tuple__", "items": [...]}
            return value["items"]
        return value

    def expect(self, key: str, allowed: tuple[Any, ...], edit: str) -> None:
        if not any(self.value(key) is one or self.value(key) == one for one in allowed):
            raise Unfit(f"{key} {shown(self.value(key))}", edit)

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or abs(value) > 2**31:
            raise Unfit(f"{key} {shown(value)}", "a whole number")
        return int(value)

    def number(self, key: str, default: float | None = None) -> float:
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 2**31:
            raise Unfit(f"{key} {shown(value)}", "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.value(key, default)
        if not isinstance(value, bool):
            raise Unfit(f"{key} {shown(value)}", "true or false")
        return value

    def pair(self, key: str, default: Pair | None = None) -> Pair:
        value = self.value(key, default)
        sides = [value, value] if isinstance(value, int | float) else value
        if not isinstance(sides, list | tuple) or len(sides) != 2:
            raise Unfit(f"{key} {shown(value)}", "two whole numbers")
        height, width = (Options({key: side}).whole(key) for side in sides)
        return height, width

    def square(self, key: str, default: Pair | None = None) -> int:
        height, width = self.pair(key, default)
        if height != width:
            raise Unfit(f"{key} {height}x{width}", f"{max(height, width)}x{max(height, width)}, as windows are square")
        return height

    def padding(self) -> Padding:
        value = self.value("padding", "valid")
        if value not in ("same", "valid"):
            raise Unfit(f"padding {shown(value)}", "same or valid")
        return cast(Padding, value)

    def around(self) -> tuple[Pair, Pair]:
        self.expect("data_format", ("channels_last", None), "data_format='channels_last'")
        found = self.value("padding", 1)
        sides = found if isinstance(found, list | tuple) and len(found) == 2 else [found, found]
        top_bottom, left_right = (Options({"padding": side}).pair("padding") for side in sides)
        return top_bottom, left_right

    def regularizers(self) -> list[str]:
        ends = ("_regularizer", "_constraint")
        return [key for key, value in self._config.items() if isinstance(key, str) and key.endswith(ends) and value]


def shown(value: Any) -> str:
    return reason(ValueError(repr(value)))[:60]
