"""The Pareto front of accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """The places of the points that no other one beats, by rising cost.

    A point is beaten by one that costs no more and is more accurate, or costs less and is as accurate; of equal points the
    first stays. Sorting makes it O(n log n).
    """
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -accuracies[place], place))
    front = list[int]()
    for place in order:
        if not front or accuracies[place] > accuracies[front[-1]]:
            front.append(place)
    return front
