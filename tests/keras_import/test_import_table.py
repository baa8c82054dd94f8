"""Terminal output of an import."""

from __future__ import annotations

import io

from rich.console import Console

from search.cli.import_table import print_import
from search.keras_import.convert import Imported


def test_a_layer_without_one_of_its_options_is_not_called_left_out() -> None:
    """`Left out: Conv2D frozen (trainable=False ...)` read as if the layer itself was missing."""
    left_out = {
        "trainable=False: a study trains every layer": ("Conv2D frozen", "Conv2D inner"),
        "kernel_regularizer: weight decay belongs to the recipe": ("Dense last",),
        "images are varied by the recipe, see augment under [recipe]": ("RandomFlip flip",),
    }
    console = Console(file=io.StringIO(), width=200)
    print_import(console, Imported(None, (), (), left_out, (), False), [])
    assert console.file.getvalue().strip().splitlines() == [  # type: ignore[attr-defined]
        "Imported without trainable=False (a study trains every layer): Conv2D frozen, Conv2D inner.",
        "Imported without kernel_regularizer (weight decay belongs to the recipe): Dense last.",
        "Left out: RandomFlip flip (images are varied by the recipe, see augment under [recipe]).",
    ]
