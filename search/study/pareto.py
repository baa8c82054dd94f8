"""Pareto front of accuracy against one or several cost metrics: the candidates that no other dominates."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial

import space
from search.budget.cost import compute_cost
from search.budget.metrics import METRICS
from search.errors import UserError, nearest
from search.files import read_json
from search.networks.architecture import Architecture, fingerprint, from_json
from search.study import references
from search.study.records import COUNTED, Record
from search.study.run import DATA, Opened, Run, Studies, load

Costs = Sequence[float]  # of one network: its value of each metric


def front_indices(costs: Sequence[Costs], accuracies: Sequence[float]) -> list[int]:
    """Indices of the points that no other dominates, by rising cost: by the first metric, then the next.

    Of equal points the first stays. After sorting, a dominating point precedes those that it dominates, so each point is
    compared with the front so far alone: O(n log n) for one metric, O(n * length of the front) for several.
    """
    order = sorted(range(len(costs)), key=lambda index: (*costs[index], -accuracies[index], index))
    front = list[int]()
    for index in order:
        cost, accuracy = costs[index], accuracies[index]
        rivals = front[-1:] if len(cost) == 1 else reversed(front)  # for one metric the last is the most accurate so far
        if not any(dominates(costs[rival], accuracies[rival], cost, accuracy) for rival in rivals):
            front.append(index)
    return front


def dominates(cost: Costs, accuracy: float, other_cost: Costs, other_accuracy: float) -> bool:
    """True if a point is at least as accurate as another and no more expensive by any metric (weak dominance)."""
    return accuracy >= other_accuracy and all(value <= other for value, other in zip(cost, other_cost, strict=True))


def select_front(candidates: Sequence[Record], metrics: Sequence[str]) -> list[Record]:
    """The trained candidates that no other dominates in accuracy and these metrics, by rising cost.

    Candidates with an unknown cost (see `add_costs`) are left out.
    """
    trained = [record for record in candidates if record.outcome == "trained" and record.best_val_accuracy is not None]
    known = [record for record in trained if not _lacks(record, metrics)]
    costs = [tuple(record.cost(name) or 0 for name in metrics) for record in known]
    return [known[index] for index in front_indices(costs, [record.best_val_accuracy or 0.0 for record in known])]


def check_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """The names of metrics without repeats, in the given order.

    Raises:
        UserError: a name is not in `METRICS`.
    """
    unique = tuple(dict.fromkeys(names))
    for name in unique:
        if name not in METRICS:
            raise UserError(f"--pareto {name}: no such metric, {nearest(name, METRICS)}")
    return unique


def add_costs(study: Opened, metrics: Sequence[str], studies: Studies | None = None) -> Opened:
    """The run with these metrics added to the record of every trained network that can still be built.

    Args:
        studies: the run's open studies, which saves a second reading.
    """
    run = study.run
    if not any(record.outcome in COUNTED and _lacks(record, metrics) for record in [*study.candidates, *study.references]):
        return study
    studies = studies or load(run)
    data = studies.candidates.user_attrs[DATA]

    def build_candidate(trial: FrozenTrial) -> Architecture:
        return space.build(run.config.space, run.config.declared(trial.params), tuple(data["input"]), data["classes"])

    def find_reference(trial: FrozenTrial) -> Architecture | None:
        return reference_network(run, trial)

    candidates = _complete(study.candidates, metrics, studies.candidates.get_trials(deepcopy=False), build_candidate)
    others = _complete(study.references, metrics, studies.references.get_trials(deepcopy=False), find_reference)
    return Opened(run, candidates, others)


def _complete(
    records: Sequence[Record],
    metrics: Sequence[str],
    trials: Sequence[FrozenTrial],
    network_of: Callable[[FrozenTrial], Architecture | None],
) -> list[Record]:
    """The records with the costs of those that were trained and lack some."""
    completed = list[Record]()
    for record in records:
        if record.outcome in COUNTED and _lacks(record, metrics):
            costs = _costs(network_of(trials[record.number]), metrics)
            record = replace(record, costs={**record.costs, **costs})
        completed.append(record)
    return completed


def reference_network(run: Run, trial: FrozenTrial) -> Architecture | None:
    """The network of a reference as it was trained; None if its files are gone or have changed."""
    matching = (
        network
        for network in _stored_networks(run, trial.user_attrs["reference"])
        if fingerprint(network) == trial.user_attrs.get("fingerprint")
    )
    return next(matching, None)


def _stored_networks(run: Run, name: str) -> Iterator[Architecture]:
    """The network of a reference's own file, then the copy in the run folder, as far as they can be read."""
    with contextlib.suppress(UserError):
        yield references.named(str(run.config.base) if name == run.config.base_name else name).architecture
    with contextlib.suppress(UserError, LookupError, TypeError):
        training = read_json(run.folder / "references" / name / "training.json")
        yield from_json(json.dumps(training["architecture"]))


def _lacks(record: Record, metrics: Sequence[str]) -> bool:
    return any(record.cost(name) is None for name in metrics)


def _costs(network: Architecture | None, metrics: Sequence[str]) -> Mapping[str, int]:
    if network is None:
        return {}
    cost = compute_cost(network)
    return {name: METRICS[name].compute(cost) for name in metrics}
