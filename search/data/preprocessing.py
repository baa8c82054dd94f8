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
    """Mean and standard deviation of each channel after the division by 255; empty where nothing is normalised.

    Raw pixels are neither divided nor normalised: a network that was exported with `--pixels raw` does that itself.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    is_raw: bool = False

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels and std has {len(self.std)}: they must be as many")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)):
            raise ValueError(f"mean {list(self.mean)} and std {list(self.std)} must be finite")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std is {list(self.std)}, every channel's must be above 0")
        if self.is_raw and self.mean:
            raise ValueError("raw pixels have no mean and std")

    def describe(self) -> str:
        """One line in words."""
        if self.is_raw:
            return "float32 pixels from 0 to 255 as they are, which the network scales itself"
        text = "float32 pixels divided by 255"
        if not self.mean:
            return text
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{text}, then (x - mean) / std per channel with mean [{mean}] and std [{std}]"

    def apply(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Convert images uint8 (n, height, width, channels) to the network's input, float32 of the same shape."""
        scaled = images.astype(np.float32)
        if self.is_raw:
            return scaled
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
        real = "pixel" if self.is_raw else "pixel / 255"
        if self.mean:
            mean, std = (", ".join(f"{value:.8g}" for value in values) for values in (self.mean, self.std))
            real = f"({real} - mean) / std per channel with mean [{mean}] and std [{std}]"
        return f"int8 = round({real} / {scale:.9g}) + {zero_point}, clipped to -128 to 127"

    @property
    def linear(self) -> tuple[list[float], list[float]]:
        """(scale, offset) of each channel, of one for all where nothing is normalised: prepared = pixel * scale + offset."""
        if not self.mean:
            return [1 / 255], [0.0]
        return [1 / (255 * std) for std in self.std], [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"mean": list(self.mean), "std": list(self.std)} | ({"raw": True} if self.is_raw else {})

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Pixels:
        """Read the result of `to_dict`.

        Raises:
            UserError: it holds something else.
        """
        try:
            return cls(tuple(map(float, plain["mean"])), tuple(map(float, plain["std"])), bool(plain.get("raw", False)))
        except (KeyError, TypeError, ValueError) as error:
            problem = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"pixels: {problem}; expected mean and std, one number for each channel") from None


RAW = Pixels(is_raw=True)


def is_shifted(table: npt.NDArray[np.int8]) -> bool:
    """True if the int8 input is the pixel less 128, as where pixels are only divided by 255."""
    return bool((table == np.arange(-128, 128)).all())
