"""Recipe of one training: optimizer, schedule, augmentation, initialiser.

`search.spaces.recipe.RecipeSpace`, the [recipe] table of a study file, may leave some of it to be searched.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

OPTIMIZERS = ("adam", "adamw", "sgd")
CLASS_WEIGHTS = ("none", "balanced")
INITIALIZERS = ("glorot_uniform", "glorot_normal", "he_uniform", "he_normal")

_FORBID = ConfigDict(extra="forbid", frozen=True, strict=True)
_Fraction = Annotated[float, Field(ge=0, lt=1)]


class Constant(BaseModel):
    """Constant learning rate."""

    model_config = _FORBID
    kind: Literal["constant"] = Field(default="constant", description="A constant learning rate.")


class InverseTime(BaseModel):
    """Inverse time decay: learning_rate / (1 + rate * epoch), stepped once an epoch."""

    model_config = _FORBID
    kind: Literal["inverse-time"] = Field(default="inverse-time", description="learning_rate / (1 + rate * epoch).")
    rate: Annotated[float, Field(gt=0, le=100)] = Field(description="Rate of the decay, an epoch.")


class Cosine(BaseModel):
    """Half a cosine from learning_rate to 0, by steps (Loshchilov and Hutter, "SGDR", 2017)."""

    model_config = _FORBID
    kind: Literal["cosine"] = Field(default="cosine", description="From learning_rate to 0 along half a cosine.")


class OneCycle(BaseModel):
    """Linear rise from learning_rate / start over `warmup` of all steps, then half a cosine to 0.

    (Smith and Topin, "Super-convergence", 2019.)
    """

    model_config = _FORBID
    kind: Literal["one-cycle"] = Field(
        default="one-cycle", description="Up to learning_rate, then to 0 along half a cosine."
    )
    warmup: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.3, description="Share of the steps in which the rate rises."
    )
    start: Annotated[float, Field(ge=1, le=1e6)] = Field(
        default=25.0, description="Divisor of learning_rate at the first step."
    )


class Linear(BaseModel):
    """Linear rise to learning_rate over `warmup` of all steps, then linear decay to 0."""

    model_config = _FORBID
    kind: Literal["linear"] = Field(default="linear", description="Straight up to learning_rate, then straight down to 0.")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share of the steps in which the rate rises."
    )


class Plateau(BaseModel):
    """Multiplication by `factor` whenever the validation loss has not fallen for `patience` epochs."""

    model_config = _FORBID
    kind: Literal["plateau"] = Field(
        default="plateau", description="Reduced whenever the validation loss has stopped falling."
    )
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.5, description="Factor on the rate at each reduction.")
    patience: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=5, description="Epochs without a lower validation loss before a reduction."
    )


SCHEDULES = (Constant, InverseTime, Cosine, OneCycle, Linear, Plateau)
DECAYING = (Cosine, OneCycle, Linear)  # to zero by the last step
NAMES_OF_DECAYING = "cosine, linear or one-cycle"
Schedule = Annotated[Constant | InverseTime | Cosine | OneCycle | Linear | Plateau, Field(discriminator="kind")]


class Augment(BaseModel):
    """Augmentation of training images, anew each time an image is used; validation images are never augmented.

    `flip = "alternating"` flips half of the images in the first pass, and then every image in every other pass.
    """

    model_config = _FORBID
    passes: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Passes over all training images in one epoch, each in its own order."
    )
    flip: bool | Literal["alternating"] = Field(
        default=False,
        description="Mirror images left to right: half of them at random, or every image in every other pass (alternating).",
    )
    crop: Annotated[int, Field(ge=0, le=64)] = Field(
        default=0, description="Pixels of reflected border, out of which the image's size is cut at random."
    )
    shift: _Fraction = Field(default=0.0, description="Largest shift as a fraction of height and width.")
    zoom: _Fraction = Field(default=0.0, description="Largest zoom, in and out.")
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        default=0.0, description="Largest rotation in degrees, either way."
    )
    cutout: Annotated[int, Field(ge=0, le=256)] = Field(
        default=0, description="Side in pixels of a square that is set to the mean; 0: none."
    )
    mixup: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.0, description="Alpha of the Beta distribution of mixup's share; 0: none."
    )


def strengthened(augment: Augment, strength: float) -> Augment:
    """Multiply all extents of an augmentation (not flips and passes) by `strength`, clipped to the limits of the fields."""
    shares = {name: min(round(getattr(augment, name) * strength, 10), 0.99) for name in ("shift", "zoom")}
    pixels = {name: round(getattr(augment, name) * strength) for name in ("crop", "cutout")}
    return Augment(
        passes=augment.passes,
        flip=augment.flip,
        crop=min(pixels["crop"], 64),
        rotation=min(round(augment.rotation * strength, 10), 180.0),
        cutout=min(pixels["cutout"], 256),
        mixup=min(round(augment.mixup * strength, 10), 10.0),
        **shares,
    )


def as_tuple(value: Any) -> Any:
    """Convert a list of JSON or TOML for a strict tuple field."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list, not {value!r}")
    return tuple(value)


class Recipe(BaseModel):
    """Complete recipe of one training."""

    model_config = _FORBID
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 50
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 128
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=1e12)] = 1e-3
    momentum: _Fraction = 0.9  # of sgd, Nesterov's
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decoupled, on kernels only
    label_smoothing: _Fraction = 0.0
    class_weights: Literal["none", "balanced"] = "none"  # balanced: in the loss each class counts as much as any other
    clip_norm: Annotated[float, Field(ge=0, le=1e12)] = 0.0  # longest gradient over all weights together; 0: as it is
    ema: _Fraction = 0.0  # decay of the moving average of the weights that is then ranked and kept; 0: none
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of compute; auto: bfloat16 on a GPU that has it
    initializer: Literal["glorot_uniform", "glorot_normal", "he_uniform", "he_normal"] = "glorot_uniform"
    deterministic: bool = Field(default=False, exclude_if=operator.not_)  # on a GPU as well, where it costs time
    normalize: bool = False  # per channel, after the division by 255
    schedule: Schedule = Constant()
    restarts: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_tuple)
    ] = ()  # epochs after which the schedule begins anew
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _check_restarts(self) -> Recipe:
        if list(self.restarts) != sorted({epoch for epoch in self.restarts if epoch < self.epochs}):
            raise ValueError(f"restarts must ascend and lie before the last epoch, {self.epochs}, not {list(self.restarts)}")
        if self.restarts and not isinstance(self.schedule, DECAYING):
            raise ValueError(f"{self.schedule.kind} does not decay to zero, which restarts need; take {NAMES_OF_DECAYING}")
        return self


def rate_at(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step (from 0) of the training, without the cuts of a plateau schedule.

    With restarts the schedule runs in full up to each of them, and then begins anew (Loshchilov and Hutter, 2017).
    """
    peak = recipe.learning_rate
    here = bisect_right(recipe.restarts, step // steps_per_epoch)
    begin, end = (0, *recipe.restarts)[here], (*recipe.restarts, recipe.epochs)[here]
    step, total = step - begin * steps_per_epoch, (end - begin) * steps_per_epoch
    progress = step / total
    match recipe.schedule:
        case InverseTime(rate=rate):
            return peak / (1 + rate * (step // steps_per_epoch))
        case Cosine():
            return peak * (1 + math.cos(math.pi * progress)) / 2
        case OneCycle(warmup=warmup, start=start):
            if progress < warmup:
                return peak * (1 / start + (1 - 1 / start) * progress / warmup)
            return peak * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2
        case Linear(warmup=warmup):
            rising = min(round(warmup * total), total - 1)
            return peak * min((step + 1) / max(1, rising), (total - step) / (total - rising))
        case _:
            return peak


_NOT_SEARCHED = (
    "epochs",
    "ema",
    "precision",
    "deterministic",
    "schedule",
    "schedules",
    "augment",
    "augments",
    "learning_rates",
)


def label(part: BaseModel) -> str:
    """Short text for a schedule or an augmentation, such as `inverse-time, rate 0.319`: its value as a parameter."""
    changed = part.model_dump(exclude_defaults=True)
    parts = [str(part.kind)] if "kind" in type(part).model_fields else []  # type: ignore[attr-defined]
    parts += [name if isinstance(value, bool) else f"{name} {value}" for name, value in changed.items()]
    return ", ".join(parts) or "none"
