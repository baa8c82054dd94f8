"""Trained networks of a run, loaded from the storage and the run folder for export.

Files that belong to another trial are rejected: each trial keeps the digest of its trained network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState

from search.budget.cost import compute_cost
from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.export.card import network_digest
from search.files import read_json, read_weights, write_json, write_weights
from search.networks.architecture import Architecture, fingerprint, from_json, to_dict
from search.storage.attributes import (
    ADOPTED,
    DELTA_VS_BASE,
    EFFECTIVE_IMAGES,
    FINGERPRINT,
    FOLD_VALUES,
    MEASURED,
    NETWORK,
    NETWORK_VALUE,
)
from search.study import dataset
from search.study.records import base_accuracy, origin_words, records
from search.study.run import DATA, Run, Studies, candidate_trial, load, network_of
from search.text import format_percent, format_percents
from search.training.folds import effective_images
from search.training.measures import ACCURACY, MEASURES, other_measures
from search.training.recipe import Recipe
from search.training.result import Training, log_key

FOLDS_FILE = "folds.json"  # log of each fold of a trial, beside their mean in history.json


@dataclass(frozen=True)
class Trained:
    """Result of one training; weights are those of the best epoch, in the order of Keras' `get_weights()`."""

    architecture: Architecture
    weights: Sequence[npt.NDArray[Any]]
    pixels: Pixels
    recipe: Mapping[str, Any]
    facts: Mapping[str, Any]
    heading: Sequence[str]


def save_training(folder: Path, architecture: Architecture, recipe: Recipe, training: Training) -> None:
    """Write the result of a training to its trial's folder, to be read by `candidate` and `reference`."""
    write_json(folder / "history.json", [epoch.to_dict() for epoch in training.history])
    if training.folds:
        write_json(folder / FOLDS_FILE, [[epoch.to_dict() for epoch in log] for log in training.folds])
    network = {"architecture": to_dict(architecture), "recipe": recipe.model_dump(mode="json")}
    write_json(folder / "training.json", network | {"pixels": training.pixels.to_dict(), "precision": training.precision})
    write_weights(folder / "weights.npz", training.best_weights)


def fold_attributes(training: Training, metric: str, images: int) -> dict[str, Any]:
    """User attributes of a training in folds: the value of each at the best epoch of their mean, and the noise of the mean.

    Args:
        images: in a fold.
    """
    values = [log[training.best.epoch - 1].score(metric) for log in training.folds]
    attributes: dict[str, Any] = {
        FOLD_VALUES: values,
        NETWORK_VALUE: max(epoch.score(metric) for epoch in training.folds[0]),
        EFFECTIVE_IMAGES: effective_images(values, images * len(values)),
    }
    if metric != ACCURACY:
        attributes[MEASURED] = {name: training.best.score(name) for name in MEASURES}
    return attributes


def is_here(run: Run, number: int) -> bool:
    """True if the run folder contains the weights of a candidate; False if another machine trained it."""
    return (run.folder / "trials" / str(number) / "weights.npz").is_file()


def candidate(run: Run, number: int | None = None, studies: Studies | None = None) -> Trained:
    """Load a trained candidate.

    Args:
        number: of its trial; None takes the best.
        studies: the run's open studies, which saves a second reading.

    Raises:
        UserError: there is no such trial, it was not trained, or its files are missing or another trial's.
    """
    studies = studies or load(run)
    trial = candidate_trial(run, number, studies)
    number = trial.number
    if trial.state != TrialState.COMPLETE:
        outcome = trial.user_attrs.get("outcome", trial.state.name.lower())
        command = f"python -m search show {run.called or run.name} {number}"
        raise UserError(f"{run.name} {number}: this trial was not trained ({outcome}); see: {command}")
    own_fingerprint = fingerprint(network_of(run, number, studies))
    folder = run.folder / "trials" / str(number)
    return _trained(run, studies, trial, folder, f"{run.name}-{number}", own_fingerprint)


def reference(run: Run, name: str) -> Trained:
    """Load a reference that the run has trained, by name.

    Raises:
        UserError: it has not been trained in this run, or its files are missing or another's.
    """
    studies = load(run)
    for trial in studies.references.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if trial.user_attrs.get("reference") == name:
            folder, own_fingerprint = run.folder / "references" / name, trial.user_attrs.get(FINGERPRINT)
            return _trained(run, studies, trial, folder, name, own_fingerprint)
    raise UserError(f"{name}: not trained in {run.folder}; train it with: {run.command} --reference {name}")


def images(run: Run, path: Path | None = None) -> Dataset:
    """Load the images of a run, split and reduced as in its trainings.

    Args:
        path: their present place; None takes that of the configuration.

    Raises:
        UserError: they cannot be read, or differ from those of the run.
    """
    config = run.config
    if path is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"path": str(path.resolve())})})
    data, known = dataset.load_study_data(config, run.folder), load(run).candidates.user_attrs[DATA]
    if data.fingerprint != known["fingerprint"]:
        source = config.data.path or data.name
        raise UserError(
            f"{source}: other images than this run has ({known['summary']}, {known['fingerprint']}; now {data.summary()}, "
            f"{data.fingerprint}); pass its own with --data"
        )
    return data


def _trained(
    run: Run, studies: Studies, trial: FrozenTrial, folder: Path, name: str, own_fingerprint: str | None
) -> Trained:
    attributes, data = trial.user_attrs, studies.candidates.user_attrs[DATA]
    scores = {key: attributes[key] for key in ("best_val_accuracy", "best_epoch", "final_val_accuracy", "epochs", "seconds")}
    if "float_val_accuracy" in attributes:
        scores["float_val_accuracy"] = attributes["float_val_accuracy"]
    if FOLD_VALUES in attributes:
        scores |= {"folds": attributes[FOLD_VALUES], "network_val_accuracy": attributes[NETWORK_VALUE]}
    base, metric = base_accuracy(run.config, records(studies.references)), run.config.search.metric
    if metric != ACCURACY:
        scores |= {"metric": metric, "measures": attributes.get(MEASURED, {})}
    best, adopted = scores["best_val_accuracy"], attributes.get(ADOPTED)
    delta = attributes.get(DELTA_VS_BASE)
    if adopted and base is not None:  # the trial was stored before the base of this study was trained
        delta = best - base
    facts = {
        "study": run.name,
        "trial": trial.number,
        "scores": scores | {"base_best_val_accuracy": base, "delta_vs_base": delta},
        "protocol": run.config.protocol,
        "budget": run.config.budget.model_dump(),
        "seeds": {"study": run.config.search.seed, "trial": attributes["seed"]},
        "data": {"summary": data["summary"], "fingerprint": data["fingerprint"], "class_names": data["class_names"]},
    } | ({"adopted": adopted} if adopted else {})
    images = "test images (course protocol)" if run.config.protocol == "course" else "held-out training images"
    n_images = dataset.images_of(data, "validation")
    accuracy = format_percent(best, n_images)
    beside = other_measures(attributes.get(MEASURED, {}), metric)
    heading = [
        f"Best {run.config.measure} {accuracy} in epoch {scores['best_epoch']} of {scores['epochs']}, on {images}.",
        *([f"Beside it: {format_percents(beside, n_images)}."] if beside else []),
        *_fold_lines(attributes, n_images),
        f"Trained on {data['summary']}{f', as {origin_words(adopted)}' if adopted else ''}.",
    ]
    training = read_json(folder / "training.json")
    try:
        network, pixels = from_json(json.dumps(training["architecture"])), Pixels.from_dict(training["pixels"])
        recipe = training["recipe"]
    except (LookupError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{folder / 'training.json'}: damaged ({type(error).__name__}); take another trial") from None
    if own_fingerprint is not None and fingerprint(network) != own_fingerprint:
        raise _not_its_own(folder, f"the network {fingerprint(network)}", own_fingerprint)
    return Trained(replace(network, name=name), own_weights(folder, trial, network), pixels, recipe, facts, heading)


def _fold_lines(attributes: Mapping[str, Any], images: int | None) -> list[str]:
    """Explanation of an accuracy over folds and of the exported network; empty without folds."""
    if FOLD_VALUES not in attributes:
        return []
    values = attributes[FOLD_VALUES]
    own = format_percent(attributes[NETWORK_VALUE], images)
    return [
        f"That is the mean of {len(values)} folds ({', '.join(format_percent(value, images) for value in values)}), each "
        "validated by a network that was trained on the others.",
        f"This network is the first fold's, in its own best epoch: {own} on that fold's images.",
    ]


def own_weights(folder: Path, trial: FrozenTrial, network: Architecture) -> list[npt.NDArray[Any]]:
    """Read the weights in a trial's folder.

    Trials of earlier versions have no digest of their network; their weights must have as many values as the network.

    Raises:
        UserError: they cannot be read, or are another network's.
    """
    weights = read_weights(folder / "weights.npz")
    if own := trial.user_attrs.get(NETWORK):
        if (digest := network_digest(network, weights)) != own:
            raise _not_its_own(folder, f"the trained network {digest[:16]}", own[:16])
        return weights
    values, params = sum(array.size for array in weights), compute_cost(network).params
    if values != params:
        raise _not_its_own(folder, f"weights of {values:,} values", f"a network of {params:,}")
    return weights


def is_own_log(epochs: Sequence[Mapping[str, Any]], curve: Sequence[float], metric: str = ACCURACY) -> bool:
    """True if a history is that of the trial with this curve of the study's measure."""
    scores = [epoch[log_key(metric)] for epoch in epochs]
    return len(scores) == len(curve) and np.allclose(scores, curve, rtol=0, atol=1e-9)


def _not_its_own(folder: Path, content: str, expected: str) -> UserError:
    return UserError(
        f"{folder}: holds {content}, and {expected} was trained there: the files are another trial's; restore those "
        "of this trial, or pass another trial"
    )
