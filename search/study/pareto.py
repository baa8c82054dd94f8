"""The Pareto front of accuracy against what networks cost, in one price or several: what no other network beats."""

from __future__ import annotations

from collections.abc import Sequence

from search.study.run import Record

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

    One of which a price is not known, see `search.study.prices.priced`, is no part of it.
    """
    trained = [record for record in candidates if record.outcome == "trained" and record.best_val_accuracy is not None]
    known = [record for record in trained if None not in (record.price(name) for name in prices)]
    costs = [tuple(record.price(name) or 0 for name in prices) for record in known]
    return [known[place] for place in front(costs, [record.best_val_accuracy or 0.0 for record in known])]
