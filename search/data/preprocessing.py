"""Preprocessing of pixels: division by 255, then normalisation per channel where a recipe asks for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search.errors import UserError


@dataclass(frozen=True, slots=True)
class Pixels:
    """Mean and standard deviation of each channel after the division by 255; empty where nothing is normalised."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels and std has {len(self.std)}: they must be as many")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)):
            raise ValueError(f"mean {list(self.mean)} and std {list(self.std)} must be finite")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std is {list(self.std)}, every channel's must be above 0")

    def describe(self) -> str:
        """One line in words."""
        text = "float32 pixels divided by 255"
        if not self.mean:
            return text
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{text}, then (x - mean) / std per channel with mean [{mean}] and std [{std}]"

    def apply(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Convert images uint8 (n, height, width, channels) to the network's input, float32 of the same shape."""
        scaled = images.astype(np.float32)
        scaled /= np.float32(255)
        if self.mean:
            scaled -= np.asarray(self.mean, np.float32)
            scaled /= np.asarray(self.std, np.float32)
        return scaled

    def quantized(self, channels: int, scale: float, zero_point: int) -> npt.NDArray[np.int8]:
        """The int8 input for each value of a pixel, int8 (channels, 256): real = (int8 - zero_point) * scale."""
        values = np.repeat(np.arange(256, dtype=np.uint8)[:, None], channels, axis=1)
        rounded = np.rint(self.apply(values[None, None]) / np.float32(scale))[0, 0] + zero_point
        return np.ascontiguousarray(np.clip(rounded, -128, 127).astype(np.int8).T)

    def describe_int8(self, channels: int, scale: float, zero_point: int) -> str:
        """The map of a pixel 0 to 255 to the int8 input, as a formula in one line."""
        if is_shifted(self.quantized(channels, scale, zero_point)):
            return "int8 = pixel - 128"
        real = "pixel / 255"
        if self.mean:
            mean, std = (", ".join(f"{value:.8g}" for value in values) for values in (self.mean, self.std))
            real = f"({real} - mean) / std per channel with mean [{mean}] and std [{std}]"
        return f"int8 = round({real} / {scale:.9g}) + {zero_point}, clipped to -128 to 127"

    def to_dict(self) -> dict[str, list[float]]:
        """As plain JSON values."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Pixels:
        """Read the result of `to_dict`.

        Raises:
            UserError: it holds something else.
        """
        try:
            return cls(tuple(map(float, plain["mean"])), tuple(map(float, plain["std"])))
        except (KeyError, TypeError, ValueError) as error:
            problem = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"pixels: {problem}; expected mean and std, one number for each channel") from None


def is_shifted(table: npt.NDArray[np.int8]) -> bool:
    """True if the int8 input is the pixel less 128, as where pixels are only divided by 255."""
    return bool((table == np.arange(-128, 128)).all())
