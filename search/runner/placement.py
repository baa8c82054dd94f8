"""Shares of a machine for its workers: a GPU, or some of the cores, set before the process starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from search.errors import UserError

_CARDS = Path("/proc/driver/nvidia/gpus")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Share:
    """Resources of one worker; an empty set of cores stands for all of them."""

    environment: Mapping[str, str] = field(default_factory=dict)
    cores: frozenset[int] = frozenset()


def plan_shares(workers: int | None, trials_per_gpu: int | None) -> list[Share]:
    """One share for each worker; by default one worker with the whole machine.

    GPUs are assigned in turn. Cores are split into equal parts, so that a trial resumes bit-equal in any of the workers; if
    there are more workers than cores, several share one.

    Raises:
        UserError: more workers than the GPUs have room for, or trials for each GPU where there is none.
    """
    cards = gpus()
    if not cards and trials_per_gpu is not None:
        raise UserError(f"--trials-per-gpu {trials_per_gpu}: no GPU was found; leave it out, and pass --workers")
    each = trials_per_gpu or 1
    number = workers or (len(cards) * each if trials_per_gpu else 1)
    room = len(cards) * each
    if cards and number > room:
        rule = f"there is room for {room}, {each} on each of {len(cards)} GPUs"
        raise UserError(f"--workers {number}: {rule}; pass --trials-per-gpu {-(-number // len(cards))}")
    parts = _parts(number) if number > 1 else [frozenset[int]()]
    return [Share({_VISIBLE: cards[index % len(cards)]} if cards else {}, part) for index, part in enumerate(parts)]


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA names them."""
    if _VISIBLE in os.environ:
        return [name.strip() for name in os.environ[_VISIBLE].split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number, _ in enumerate(sorted(_CARDS.iterdir()))] if _CARDS.is_dir() else []


@contextlib.contextmanager
def on_cores(share: Share) -> Iterator[None]:
    """Start processes inside the block on the share's cores; libraries count the cores when they load."""
    if not share.cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, share.cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _parts(number: int) -> list[frozenset[int]]:
    """The cores of each of so many workers; empty sets where the system cannot pin them."""
    if not hasattr(os, "sched_getaffinity"):
        return [frozenset()] * number
    cores = sorted(os.sched_getaffinity(0))
    width = max(1, len(cores) // number)
    return [frozenset(cores[(index * width + step) % len(cores)] for step in range(width)) for index in range(number)]
