"""The Pareto front of accuracy against what networks cost, in one price or several: what no other network beats."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial

import space
from search.budget.cost import price
from search.budget.limits import WORDS
from search.errors import UserError, nearest
from search.files import read_json
from search.networks.architecture import Architecture, fingerprint, from_json
from search.study import references
from search.study.records import COUNTED, Record
from search.study.run import DATA, Opened, Run, Studies, load

Costs = Sequence[float]


def front(costs: Sequence[Costs], accuracies: Sequence[float]) -> list[int]:
    """The places of the points that no other one beats, by rising cost: by the first price, then the next.

    A point is beaten by one that costs no more in any price and is as accurate, and is better in one of these; of equal
    points the first stays. After sorting, what beats a point stands before it, so each is held against the front so far
    alone: O(n log n) in one price, O(n times the length of the front) in several.
    """
    order = sorted(range(len(costs)), key=lambda place: (*costs[place], -accuracies[place], place))
    found = list[int]()
    for place in order:
        cost, accuracy = costs[place], accuracies[place]
        known = found[-1:] if len(cost) == 1 else reversed(found)  # in one price the last is the most accurate so far
        if not any(is_as_good(costs[one], accuracies[one], cost, accuracy) for one in known):
            found.append(place)
    return found


def is_as_good(cost: Costs, accuracy: float, than: Costs, than_accuracy: float) -> bool:
    """Whether a point costs no more in any price than another and is at least as accurate."""
    return accuracy >= than_accuracy and all(one <= other for one, other in zip(cost, than, strict=True))


def front_of(candidates: Sequence[Record], prices: Sequence[str]) -> list[Record]:
    """The trained candidates that no other beats in accuracy and these prices, by rising price.

    One of which a price is not known, see `search.study.pareto.priced`, is no part of it.
    """
    trained = [record for record in candidates if record.outcome == "trained" and record.best_val_accuracy is not None]
    known = [record for record in trained if None not in (record.price(name) for name in prices)]
    costs = [tuple(record.price(name) or 0 for name in prices) for record in known]
    return [known[place] for place in front(costs, [record.best_val_accuracy or 0.0 for record in known])]


PRICES = tuple(WORDS)  # what can be limited can be traded for accuracy


def asked(names: Iterable[str]) -> tuple[str, ...]:
    """Prices as a person names them, each once.

    Raises:
        UserError: one is no price.
    """
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in PRICES:
            raise UserError(f"--pareto {name}: no such price, {nearest(name, PRICES)}")
    return found


def priced(study: Opened, names: Sequence[str], studies: Studies | None = None) -> Opened:
    """The run with these prices known of every network that was trained, where there is a way to know them.

    Args:
        studies: those of the run, where they are open: what has been read of them is not read again.
    """
    run, lacking = study.run, [record for record in [*study.candidates, *study.references] if _lacks(record, names)]
    if not lacking:
        return study
    studies = studies or load(run)
    data = studies.candidates.user_attrs[DATA]

    def drawn(trial: FrozenTrial) -> Architecture:
        return space.build(run.config.space, run.config.declared(trial.params), tuple(data["input"]), data["classes"])

    def known(trial: FrozenTrial) -> Architecture | None:
        return _opponent(run, trial)

    candidates = _priced(study.candidates, names, studies.candidates.get_trials(deepcopy=False), drawn)
    opponents = _priced(study.references, names, studies.references.get_trials(deepcopy=False), known)
    return Opened(run, candidates, opponents)


def _priced(
    records: Sequence[Record],
    names: Sequence[str],
    trials: Sequence[FrozenTrial],
    network_of: Callable[[FrozenTrial], Architecture | None],
) -> list[Record]:
    return [
        replace(record, prices={**record.prices, **_prices(network_of(trials[record.number]), names)})
        if _lacks(record, names)
        else record
        for record in records
    ]


def _opponent(run: Run, trial: FrozenTrial) -> Architecture | None:
    """The network of a reference as it was trained; None where its files have gone since, or changed."""
    name, found = trial.user_attrs["reference"], list[Architecture]()
    with contextlib.suppress(UserError):
        found.append(references.named(str(run.config.base) if name == run.config.base_name else name).architecture)
    with contextlib.suppress(UserError, LookupError, TypeError):
        kept = read_json(run.folder / "references" / name / "training.json")
        found.append(from_json(json.dumps(kept["architecture"])))
    return next((one for one in found if fingerprint(one) == trial.user_attrs.get("fingerprint")), None)


def _lacks(record: Record, names: Sequence[str]) -> bool:
    return record.outcome in COUNTED and any(record.price(name) is None for name in names)


def _prices(network: Architecture | None, names: Sequence[str]) -> Mapping[str, int]:
    if network is None:
        return {}
    cost = price(network)
    return {name: getattr(cost, name) for name in names}
