"""Events that a worker reports to its supervisor, one JSON line each.

A worker's `search.runner.reporter.Reporter` sends them; the supervisor acts on some and passes the others on to its
`View`.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, Literal, Protocol, TextIO

from pydantic import Field, TypeAdapter

from search.training.measures import ACCURACY
from search.training.result import Outcome, log_key

STEP_SECONDS = 0.25  # between two events about the steps of a training


# --- of a worker -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImagesRead:
    """So many of the images are read."""

    done: int
    total: int
    event: Literal["reading"] = "reading"


@dataclass(frozen=True)
class DeviceReady:
    """The device and the data set are described in a line each."""

    text: str
    data: str
    rank_by: Literal["float", "int8"] = "float"  # the network by which the study ranks
    val_images: int | None = None  # number of validation images
    metric: str = ACCURACY  # the measure by which the study ranks
    classes: int | None = None
    guess: float | None = None  # value of the measure for always guessing the commonest class
    event: Literal["device"] = "device"


@dataclass(frozen=True)
class StudyLoaded:
    """The state of the study when a worker starts."""

    trials: int  # that the study asks for
    done: int  # that count towards them
    best: tuple[float, int] | None = None  # accuracy and number of the best candidate
    trained: int = 0
    pruned_at_rung: int = 0
    rejected: int = 0
    failed: int = 0
    adopted: int = 0
    event: Literal["found"] = "found"


@dataclass(frozen=True)
class TrialsAdopted:
    """Trained trials of other runs were adopted; what, and why others were not, in lines of text."""

    text: str
    event: Literal["adopted"] = "adopted"


@dataclass(frozen=True)
class PriorFitted:
    """Trials of other studies are fitted as the sampler's prior; which, and what they explain, in a line of text."""

    text: str
    event: Literal["prior"] = "prior"


@dataclass(frozen=True)
class BaseKnown:
    """The accuracy to beat is known, or the value of the study's other measure."""

    accuracy: float
    is_network: bool = True  # False for a number in the study file
    event: Literal["base"] = "base"


@dataclass(frozen=True)
class PhaseStarted:
    """Work other than the search: the finals, or their control."""

    text: str
    done: int
    goal: int
    event: Literal["phase"] = "phase"


def finalist_name(contender: str, repeat: int) -> str:
    """Name of a training of the finals: `trial-7, seed 2`."""
    return f"{contender}, seed {repeat + 1}"


@dataclass(frozen=True)
class Waiting:
    """Nothing can be trained before another worker is done.

    Attributes:
        names: trainings in progress, as the display names them.
        grace_minutes: without a heartbeat, after which one is requeued.
    """

    names: tuple[str, ...] = ()
    grace_minutes: float = 0.0
    event: Literal["waiting"] = "waiting"


@dataclass(frozen=True)
class DatabaseUnavailable:
    """The database does not answer; the worker retries."""

    reason: str
    event: Literal["away"] = "away"


@dataclass(frozen=True)
class LimitHit:
    """A stopping rule of the study was reached."""

    text: str
    event: Literal["enough"] = "enough"


@dataclass(frozen=True)
class Finishing:
    """The winner and the report are being written."""

    event: Literal["finishing"] = "finishing"


# --- of a trial ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialStarted:
    """The training of a trial begins."""

    number: int
    params: int
    macs: int = 0
    receptive_field: int | None = None  # in pixels, the larger of height and width
    seed: int = 0
    refused: int = 0  # proposals rejected before it
    reference: str | None = None
    contender: str | None = None  # name of the finalist
    repeat: int | None = None  # seed of the finalist
    event: Literal["trial"] = "trial"


@dataclass(frozen=True)
class StepDone:
    """So many steps of a training are done."""

    number: int
    step: int
    steps: int
    event: Literal["step"] = "step"


@dataclass(frozen=True)
class EpochDone:
    """So many epochs of a training are done; the other fields are those of `search.training.result.Epoch`."""

    number: int
    epochs: int
    epoch: int
    val_accuracy: float
    loss: float = 0.0
    accuracy: float = 0.0
    val_loss: float = 0.0
    learning_rate: float = 0.0
    seconds: float = 0.0
    raw_val_loss: float | None = None
    raw_val_accuracy: float | None = None
    val_balanced_accuracy: float | None = None
    val_macro_f1: float | None = None
    raw_val_balanced_accuracy: float | None = None
    raw_val_macro_f1: float | None = None
    event: Literal["epoch"] = "epoch"

    def score(self, metric: str) -> float:
        """The validation figure of a measure; the accuracy where it was not measured."""
        value: float | None = getattr(self, log_key(metric))
        return self.val_accuracy if value is None else value


@dataclass(frozen=True)
class TrialEnded:
    """A trial has an outcome."""

    number: int
    outcome: Outcome
    reason: str | None = None
    seconds: float | None = None
    compile_seconds: float | None = None
    best_val_accuracy: float | None = None  # by which the study ranks
    float_val_accuracy: float | None = None  # of the best epoch, in a study that ranks int8 networks
    event: Literal["end"] = "end"


@dataclass(frozen=True)
class TrialReassigned:
    """The trial was requeued while this worker trained it, so its result is discarded."""

    number: int
    event: Literal["refused"] = "refused"


# --- the end of a worker ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """The order is carried out."""

    event: Literal["done"] = "done"


@dataclass(frozen=True)
class Recycle:
    """A fresh process is to continue."""

    event: Literal["recycle"] = "recycle"


@dataclass(frozen=True)
class UserFault:
    """The user's input is at fault."""

    text: str
    event: Literal["user_error"] = "user_error"


@dataclass(frozen=True)
class Stopped:
    """The study cannot continue."""

    text: str
    event: Literal["stopped"] = "stopped"


@dataclass(frozen=True)
class WorkerLost:
    """A worker crashed or hung; its trials are closed. Reported by the supervisor."""

    reason: str
    numbers: tuple[int, ...] = ()
    event: Literal["lost"] = "lost"


Event = (
    ImagesRead | DeviceReady | StudyLoaded | TrialsAdopted | PriorFitted | BaseKnown | PhaseStarted | Waiting
    | DatabaseUnavailable | LimitHit | Finishing
    | TrialStarted | StepDone | EpochDone | TrialEnded | TrialReassigned
    | Done | Recycle | UserFault | Stopped | WorkerLost
)  # fmt: skip


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Event]:
    return TypeAdapter(Annotated[Event, Field(discriminator="event")])


def encode_event(event: Event) -> str:
    """The event as a line of JSON."""
    return json.dumps(asdict(event)) + "\n"


def decode_event(line: bytes | str) -> Event:
    """The event of a line that `encode_event` wrote.

    Raises:
        ValueError: the line is no event, as where the writing process was killed.
    """
    return _adapter().validate_json(line)


class View(Protocol):
    """Shows a run to the user."""

    def show(self, event: Event, worker: int = 0) -> None:
        """Show an event of the worker of this index."""


class EventWriter:
    """Writes events to a stream, and leaves out steps that follow each other closely."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last_step = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            if time.monotonic() - self._last_step < STEP_SECONDS:
                return
            self._last_step = time.monotonic()
        self._stream.write(encode_event(event))
        self._stream.flush()
