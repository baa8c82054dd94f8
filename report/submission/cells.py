"""Cells of the submitted notebook: code and logs of base and winner, and repeated measurements.

The notebook needs keras, numpy and plotly only, and marks each part as executed or replayed from a log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from report.analysis.verdict import Verdict
from report.markdown.formatting import escaped
from report.markdown.report import Check, checklist
from report.submission import code as codes
from report.submission.code import DATA, Images, Network
from report.submission.notebook import Cell, code, markdown
from search.export.training_source import training_source
from search.text import format_percent
from search.training.measures import ACCURACY, MEASURES


@dataclass(frozen=True)
class HandIn:
    """Content of the notebook."""

    title: str
    verdict: Verdict
    protocol: str
    limit: int  # parameters must be below it
    base: Network | None  # None if the base is a plain accuracy
    base_accuracy: float
    winner: Network
    checks: tuple[Check, ...]  # the comparison with the base comes last
    val_images: int | None
    images: Images | None  # None if the images are not available
    metric: str = ACCURACY  # the measure by which the study ranks
    unfinished: str | None = None  # a line on the trials that the study still lacks

    @property
    def checklist(self) -> str:
        """The checks as a Markdown table."""
        return checklist(self.checks)

    @property
    def networks(self) -> list[Network]:
        """The base, if it is a network, and the winner."""
        return [self.base, self.winner] if self.base else [self.winner]

    @property
    def what_was_done(self) -> str:
        """Markdown list of executed, replayed and omitted parts."""
        both, trainings = ("both networks", "the trainings") if self.base else ("the network", "the training")
        label = MEASURES[self.metric].label
        measured = f", their {label} measured again on the validation images" if self.images else ""
        lines = [
            f"**Executed** when the notebook was made: {both} built and summarised, the trained weights loaded{measured}, "
            "the checks at the end.",
            f"**Replayed** from `logs/`: {trainings}, epoch by epoch, as logged when the study ran.",
            "**Not run**: the training code; it trains when `RETRAIN` is set.",
            *([] if self.images else [f"**Not measured again**: {label}, as the images were not at hand."]),
        ]
        return "\n".join(f"- {line}" for line in lines)


def cells(hand_in: HandIn) -> list[Cell]:
    """Return the cells of the notebook."""
    verdict, label = escaped(hand_in.verdict.text), MEASURES[hand_in.metric].label
    base_score = format_percent(hand_in.base_accuracy, hand_in.val_images)
    verdict = f"**{escaped(hand_in.unfinished)}**\n\n{verdict}" if hand_in.unfinished else verdict
    return [
        markdown(f"# {escaped(hand_in.title)}\n\n{verdict}\n\n{hand_in.what_was_done}\n\nProtocol: {hand_in.protocol}"),
        code(codes.setup(hand_in.val_images, hand_in.metric)),
        markdown(f"## Images\n\n{_about_images(hand_in.images)}"),
        code(codes.IMAGES),
        *([] if hand_in.base else [markdown(_NO_BASE.format(label, base_score))]),
        *(cell for network in hand_in.networks for cell in _network(network)),
        markdown(f"## Learning curves\n\nValidation {label} by epoch, from the logs."),
        code(codes.curves(hand_in.networks, hand_in.base_accuracy, hand_in.metric)),
        *_trainings(hand_in.networks, hand_in.images, hand_in.metric),
        markdown(f"## The trained networks\n\n{_MEASURED.format(label) if hand_in.images else _LOADED}"),
        code(codes.measuring(hand_in.networks, hand_in.metric)),
        markdown(f"## Checklist\n\nAs the study has it:\n\n{hand_in.checklist}\n\n{_COUNTED}"),
        code(
            codes.counting(
                hand_in.limit,
                hand_in.base_accuracy,
                hand_in.checks[-1].mark,
                hand_in.verdict.title,
                base_was_trained=hand_in.base is not None,
                metric=hand_in.metric,
            )
        ),
    ]


_NO_BASE = "## The base\n\nA plain {}, {}: there is no network of it."
_MEASURED = "Weights are those of the best epoch. Their {} is measured on the validation images and compared with the log."
_LOADED = "Weights are those of the best epoch. They are loaded and not measured, see Images."
_COUNTED = (
    "Counted once more, here, on the trained network, its source and the logs in this folder. Only the comparison with the "
    "base is the study's own, as fresh seeds decide it:"
)
_TRAINED = (
    "**Not run here.** {shared}The study trains in compiled calls of many steps; this is the same training in plain Keras. "
    "With `RETRAIN = True` in the first cell it trains from the first epoch."
)
_NETWORK = (
    "## The {role}\n\n`{name}`. Comments give each layer's output size, its receptive field (pixels of the image, each way) "
    "and its parameters. The same code is in `{file}.py`."
)


def _about_images(images: Images | None) -> str:
    if images is None:
        return f"They were not at hand when this was made, so there is no `{DATA}`."
    split = "the test images" if images.are_test else "held out from training"
    held = "training and validation images" if images.has_training else "validation images"
    there = f"`{DATA}` holds the {held} as the study took them."
    if not images.is_handed_in:
        there = f"The validation images lay in `{DATA}` when this was executed; they are too many to hand in."
    return f"{escaped(images.name)}: trained on {images.training:,}, validated on {images.validation:,}, {split}. {there}"


def _network(network: Network) -> Iterator[Cell]:
    yield markdown(_NETWORK.format(role=network.role, name=network.name.replace("`", "'"), file=network.file))
    yield code(codes.definition(network))
    yield code(codes.building(network))
    yield markdown(f"### Training log of the {network.role}\n\nReplayed from `logs/{network.role}.json`.")
    yield code(f'print_log("{network.role}")')


def _trainings(networks: Sequence[Network], images: Images | None, metric: str) -> Iterator[Cell]:
    """Recipe of each network, once if they share it."""
    alike = all((network.recipe, network.policy) == (networks[0].recipe, networks[0].policy) for network in networks)
    shared = "Base and winner were trained by the same recipe. " if alike and len(networks) > 1 else ""
    yield markdown(f"## How they were trained\n\n{_TRAINED.format(shared=shared)}")
    yield code(codes.training_images(images))
    for group in [networks] if alike else [[network] for network in networks]:
        subject = "The training" if alike else f"The training of the {group[0].role}"
        yield code(training_source(group[0].recipe, policy=group[0].policy, subject=subject, metric=metric))
        yield code(codes.retraining(group))
