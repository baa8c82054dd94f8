"""Checks of a study before its data are loaded and its database is created, the same for `plan` and `run`."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.data.dataset import check_splits, shape_of
from search.errors import UserError
from search.study import references, survey
from search.study.config import ROOT, StudyConfig
from search.study.references import Reference
from search.study.study_file import is_file
from search.tuning.candidate import DataFacts, Rejection, judge
from space import NotInSpace, encode

_OUT = "leave it out of search.warm_start"


@dataclass(frozen=True)
class Networks:
    """The known networks of a study, read from their files."""

    references: tuple[Reference, ...]  # to train beside the candidates, such as the base
    warm_start: tuple[Reference, ...]


def check_before_loading(config: StudyConfig, wanted: tuple[str, ...] = ()) -> Networks:
    """Read the known networks and check everything that does not need the images.

    Args:
        wanted: references to train instead of the base.

    Raises:
        UserError: a network is missing or breaks a rule of the study, or no network of the space fits the budget.
    """
    _require_trackers(config)
    if wanted:
        named = [references.find(name) for name in wanted]
    else:
        named = [references.named(config.base)] if isinstance(config.base, str) else []
    networks = Networks(tuple(named), tuple(references.named(name) for name in config.search.warm_start))
    if config.data.name is not None:
        if config.data.path is None:
            check_splits(config.data.name, config.protocol, config.data.holdout, config.data.images, config.data.folds)
        shape, classes = shape_of(config.data.name, None, config.protocol, config.data.holdout)
        check_networks(config, networks, config.data.name, DataFacts(shape, classes, ""))
    return networks


def check_networks(
    config: StudyConfig, networks: Networks, data_name: str, facts: DataFacts
) -> list[tuple[str, dict[str, Any]]]:
    """Check the space and the known networks against the data; (name, parameters) of each warm-start network.

    Raises:
        UserError: no network of the space fits, or a known network does not.
    """
    survey.check(config.space, config.budget, facts.input_shape, facts.classes)
    for reference in networks.references:
        references.check(reference, data_name, facts.input_shape, facts.classes)
    return [(known.name, _parameters_of(config, known, facts)) for known in networks.warm_start]


def _require_trackers(config: StudyConfig) -> None:
    """Raise UserError where a tracker of the study is not installed."""
    for name in config.log.to:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"log.to: {name} is not installed; make {name} adds it to the environment, or leave it out")


def recipe_notes(config: StudyConfig, wanted: tuple[str, ...] = ()) -> list[str]:
    """A note for each network to train whose architecture file has a recipe file beside it.

    Args:
        wanted: references to train instead of the base.
    """
    networks = {name: Path(name) for name in wanted if name.endswith(".json")}
    if not wanted and isinstance(config.base, str) and is_file(config.base):
        networks["The base"] = ROOT / config.base
    sheets = {name: path.with_suffix(".toml") for name, path in networks.items()}
    return [
        f"{name} is trained with the recipe beside it, {sheet}, not with that of the study."
        for name, sheet in sheets.items()
        if sheet.is_file()
    ]


def _parameters_of(config: StudyConfig, known: Reference, facts: DataFacts) -> dict[str, Any]:
    """The parameters with which the space expresses a known network.

    Raises:
        UserError: the space cannot express it, or it does not fit.
    """
    try:
        values = encode(config.space, known.architecture)
    except NotInSpace as error:
        why = f"{known.name} is no network of this space ({error}); widen the space, or {_OUT}"
        raise UserError(f"search.warm_start: {why}") from None
    first = {name: domain.first for name, domain in config.parameters.items()}
    proposal = judge(config, facts, first | values)
    if isinstance(proposal, Rejection):
        remedy = f"raise the budget, or {_OUT}" if proposal.rule == "over budget" else _OUT
        raise UserError(f"search.warm_start: {known.name}: {proposal.reason}; {remedy}")
    return values
