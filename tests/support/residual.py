"""Shared by the tests of residual and residual_costs."""

from __future__ import annotations

from typing import Any

from space import ResidualStages

WIDE = ResidualStages.model_validate(
    {
        "stages": [1, 2, 3],
        "blocks": {"low": 1, "high": 4},
        "width": {"low": 16, "high": 96, "step": 4},
        "second_kernel": [3, 5],
        "dilation": [1, 2],
        "block": {"choices": ["plain", "inverted", "gated"], "per": "stage"},
        "expansion": {"low": 0.5, "high": 4.0, "step": 0.5, "per": "stage"},
        "activation": {"choices": ["relu", "silu", "gelu"], "per": "stage"},
        "norm": ["after", "before"],
        "uses": {"choices": [1, 2], "per": "stage"},
        "downsample": {"choices": ["stride", "max", "average"], "per": "stage"},
        "downsample_kernel": [2, 3],
        "stem_kernel": [3, 5],
        "stem_stride": [1, 2],
        "stem_multiplier": [1, 3, 9],
        "head": ["conv", "dense"],
        "momentum": [0.9, 0.99],
        "epsilon": [1e-3, 1e-5],
    }
)


def space(**table: Any) -> ResidualStages:
    """A small space: two stages of one plain block of 8 channels, unless the table says otherwise."""
    small = {"stages": 2, "blocks": 1, "width": 8, "kernel": 3, "block": "plain", "activation": "relu"}
    return ResidualStages.model_validate(small | table)
