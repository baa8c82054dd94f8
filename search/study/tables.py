"""The tables of a study file beside its space and its recipe, as checked records; unknown keys are rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, field_validator, model_validator

from search.budget.metrics import METRICS
from search.data.groups import compile_pattern
from search.data.images import AS_THEY_ARE, Options
from search.training.measures import ACCURACY
from search.training.recipe import as_tuple

LARGEST_SIDE = 1024  # of an image, in pixels
MOST_FOLDS = 100  # trainings of one candidate

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)
_Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


def _sides(value: object) -> object:
    """(height, width); one number stands for a square."""
    return (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list) else value


def _is_default(value: object) -> bool:
    return not value


def _as_paths(value: object) -> object:
    """A tuple of paths; one path stands for itself."""
    return (value,) if isinstance(value, str) else as_tuple(value)


def _is_accuracy(value: object) -> bool:
    return value == ACCURACY


class DataConfig(BaseModel):
    """The [data] table: the images, and how they are split and prepared."""

    model_config = STRICT
    name: Literal["cifar10", "cifar100", "digits"] | None = Field(
        default=None, description="A data set that the program knows."
    )
    path: str | None = Field(
        default=None,
        description="A folder of images by class, an .npz file, or an official CIFAR archive; relative to the study file.",
    )
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1,
        description="Share of the training images that is held out for validation, where the data has no validation images.",
    )
    images: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Training images to take, stratified; the other splits are reduced in proportion. Left out: all.",
    )
    normalize: bool = Field(default=False, description="Normalise each channel by the training images' mean and deviation.")
    # how the images of a path are read, a folder's or an array file's
    size: Annotated[tuple[_Side, _Side] | None, BeforeValidator(_sides)] = Field(
        default=None,
        description="Size that images are resized to: [height, width], or one number for both. Left out: as they are.",
    )
    grayscale: bool = Field(default=False, description="Convert images to one grey channel.")
    background: Literal["white", "black"] = Field(
        default="white", description="Colour behind transparent pixels of a folder's images."
    )
    classes: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="Sub-folders to take as classes. Left out: all."
    )
    # Left out of a stored configuration where they say nothing, so that it is the same as that of earlier versions.
    bits: Annotated[int, Field(ge=8, le=16)] | None = Field(
        default=None,
        exclude_if=_is_default,
        description="Bits of the values in a folder's 16-bit grey images, such as 12. Left out: 16.",
    )
    skip_damaged: bool = Field(
        default=False,
        exclude_if=_is_default,
        description="Leave out image files that cannot be decoded, instead of stopping; reports count them.",
    )
    drop_copies: bool = Field(
        default=False,
        exclude_if=_is_default,
        description="Leave out images that equal another to the pixel; of equal images of different classes, all.",
    )
    folds: Annotated[int, Field(ge=2, le=MOST_FOLDS)] | None = Field(
        default=None,
        exclude_if=_is_default,
        description=(
            "Cross-validation: the training images fall into so many stratified parts, and a candidate is trained once for "
            "each, which validates it; for small data sets. Left out: one validation part."
        ),
    )
    group: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        exclude_if=_is_default,
        description=(
            "Regular expression for the paths of a folder's images, such as 'patient([0-9]+)': images with the same text in "
            "its first capture group stay on one side of every split."
        ),
    )

    @field_validator("group")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        if value is not None:
            compile_pattern(value)
        return value

    @model_validator(mode="after")
    def _named(self) -> DataConfig:
        if self.name is None and self.path is None:
            raise ValueError('name or path is needed, such as name = "cifar10"')
        changed = [key for key, value in vars(self.options).items() if value != getattr(AS_THEY_ARE, key)]
        changed += ["skip_damaged"] if self.skip_damaged else []
        changed += ["group"] if self.group is not None else []
        if self.name is not None and changed:
            raise ValueError(f"{changed[0]}: {self.name} is taken as it is; leave it out, or give a path without a name")
        if self.folds is not None and self.holdout != DataConfig.model_fields["holdout"].default:
            raise ValueError("folds: each fold is held out in turn, and holdout says otherwise; leave one of them out")
        if self.classes and len(set(self.classes)) != max(len(self.classes), 2):
            raise ValueError(f"classes: at least two, each once, not {list(self.classes)}")
        return self

    @property
    def options(self) -> Options:
        """The options of reading the images of a path."""
        return Options(self.size, self.grayscale, self.background, self.classes, self.bits)


class Rungs(BaseModel):
    """The [search.rungs] table: after `first`, `first * factor`, ... epochs only promising candidates continue.

    (Epochs of the rungs as in successive halving: Jamieson and Talwalkar, 2016.)
    """

    model_config = STRICT
    first: Annotated[int, Field(ge=1)] = Field(description="Epochs before the first rung.")
    factor: Annotated[int, Field(ge=2)] = Field(default=3, description="Factor between rungs.")

    def before(self, epochs: int) -> tuple[int, ...]:
        """The epochs at which a candidate may be pruned in a training of `epochs`."""
        rungs, rung = [], self.first
        while rung < epochs:
            rungs.append(rung)
            rung *= self.factor
        return tuple(rungs)


if TYPE_CHECKING:
    _MetricDirections = BaseModel
else:
    _MetricDirections = create_model(
        "_MetricDirections",
        accuracy=(Literal["maximize"] | None, None),  # for its place among the keys, see `Directions`
        **{
            name: (Literal["minimize"] | None, Field(default=None, description=f"Minimise: {metric.description.lower()}."))
            for name, metric in METRICS.items()
        },
    )


class Directions(_MetricDirections):
    """Objectives of a study with several: accuracy and cost metrics of `search.budget.metrics.METRICS`."""

    model_config = STRICT
    accuracy: Literal["maximize"] | None = Field(
        default=None, description="Accuracy, or the metric in its place, is always one of the objectives."
    )

    @model_validator(mode="after")
    def _several(self) -> Directions:
        if self.accuracy is None:
            raise ValueError('accuracy must be among them: accuracy = "maximize"')
        if not self.cost_metrics:
            raise ValueError(
                f"accuracy alone is what every study maximises; add one of {', '.join(METRICS)}, or leave directions out"
            )
        return self

    @property
    def cost_metrics(self) -> tuple[str, ...]:
        """Metrics that are minimised, in the order of `METRICS`."""
        return tuple(name for name in METRICS if getattr(self, name))


class SearchConfig(BaseModel):
    """The [search] table: sampler, ranking, and supervision of the worker processes."""

    model_config = STRICT
    trials: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Trained candidates, those pruned at a rung included. Left out: 20, or the whole grid."
    )
    sampler: Literal["tpe", "random", "bayes", "nsga2", "grid"] = Field(
        default="tpe",
        description="Sampler of candidates; bayes learns accuracy from features of the networks and recipes themselves.",
    )
    fit: Literal["reject", "fill"] = Field(
        default="reject",
        description="Candidates over the budget are rejected, or widths are scaled to the largest network under it (fill).",
    )
    repeats: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Seeds that every cell of a grid is trained on."
    )
    rank_by: Literal["float", "int8"] = Field(
        default="float",
        description="Network whose accuracy, or other metric, ranks candidates: the float network or the int8 network.",
    )
    # Left out of a stored configuration where it is accuracy, so that it is the same as that of earlier versions.
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1"] = Field(
        default="accuracy",
        exclude_if=_is_accuracy,
        description="Measure that ranks candidates: accuracy, the mean recall of all classes, or their mean F1.",
    )
    flip_average: bool = Field(
        default=False, description="Also record the measure averaged over each image and its mirror image; not ranked."
    )
    warm_start: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="References and architecture files that are tried first."
    )
    adopt: Annotated[tuple[str, ...], BeforeValidator(_as_paths)] = Field(
        default=(),
        exclude_if=_is_default,
        description="Run folders, one or a list, whose trained trials are adopted as far as this study admits them.",
    )
    prior: Annotated[tuple[str, ...], BeforeValidator(_as_paths)] = Field(
        default=(),
        exclude_if=_is_default,
        description='Run folders, or the shipped "cifar10-16px", that tell the bayes sampler which networks to try first.',
    )
    rungs: Rungs | None = Field(
        default=None, description="Epochs after which candidates are pruned that promise less than others did."
    )
    directions: Directions | None = Field(
        default=None, description="Several objectives: accuracy (the metric) and the costs that are minimised with it."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=0, description="Root seed of all randomness.")
    recycle_after: Annotated[int, Field(ge=1)] = Field(
        default=20, description="Trials that one worker process trains before it is replaced by a fresh one."
    )
    stall_minutes: Annotated[float, Field(gt=0)] = Field(
        default=15.0, description="Minutes without progress after which a worker is stopped."
    )
    grace_minutes: Annotated[float, Field(gt=0)] = Field(
        default=2.0, description="Minutes without a heartbeat after which a trial is requeued."
    )

    @model_validator(mode="after")
    def _goes_together(self) -> SearchConfig:
        if self.prior and self.sampler != "bayes":
            unaware = f"the {self.sampler} sampler learns nothing from other studies"
            raise ValueError(f'prior: {unaware}; take sampler = "bayes", or leave prior out')
        if twice := [folder for folder in self.prior if folder in self.adopt]:
            raise ValueError(f"prior: {twice[0]} is adopted, and would count twice; leave it out of adopt or of prior")
        if self.rungs and self.sampler in ("nsga2", "grid"):
            why = "learns nothing from a pruned trial" if self.sampler == "nsga2" else "trains all of its cells in full"
            raise ValueError(f"rungs: the {self.sampler} sampler {why}; take bayes, tpe or random, or leave rungs out")
        if self.directions and self.rungs:
            raise ValueError(
                "directions: rungs prune by accuracy alone, and would end the small networks of a front; leave rungs out"
            )
        if self.directions and self.fit == "fill":
            raise ValueError(
                'directions: fit = "fill" makes every network as large as the budget allows, so that no small one is ever '
                "tried; leave fit out"
            )
        if self.sampler == "grid" and self.fit == "fill":
            raise ValueError('fit: "fill" changes the widths that a grid lists; leave it out')
        if self.repeats > 1 and self.sampler != "grid":
            raise ValueError('repeats: cells are repeated by sampler = "grid"; finals trains the best of a search again')
        return self


class StopConfig(BaseModel):
    """The [stop] table: limits at which a study ends early, and the time of one trial; a key left out is no limit."""

    model_config = STRICT
    hours: Annotated[float, Field(gt=0)] | None = Field(default=None, description="Wall-clock hours of one run.")
    device_hours: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Hours that all trainings of the study take together."
    )
    accuracy: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Validation accuracy, or value of the metric, at which the study ends."
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Trained trials in a row without a better one."
    )
    expected_gain: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        exclude_if=_is_default,
        description="Gain that is expected of a further trial, 0.001 for 0.1 points, below which the study ends.",
    )
    trial_minutes: Annotated[float, Field(gt=0)] | None = Field(default=None, description="Minutes that one trial may take.")


class LogConfig(BaseModel):
    """The [log] table: experiment trackers that receive a copy of every trial."""

    model_config = STRICT
    to: Annotated[tuple[Literal["tensorboard", "mlflow"], ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="Trackers that trials are copied to; each is an extra: make tensorboard, make mlflow."
    )
