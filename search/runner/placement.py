"""The share of a machine that each of its workers trains on: a GPU, or some of the cores, set before the process starts."""

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
    """What one worker gets; without cores it may use all of them."""

    environment: Mapping[str, str] = field(default_factory=dict)
    cores: frozenset[int] = frozenset()


def shares(workers: int | None, trials_per_gpu: int | None) -> list[Share]:
    """One share for each worker; where nothing is asked for, one worker with all that there is.

    GPUs go round. Cores are split into equal parts, so that a trial goes on bit-equal with any of the workers, or are shared
    one by one where there are more workers than cores.

    Raises:
        UserError: more workers than the GPUs take, or trials for each GPU where there is none.
    """
    cards = gpus()
    if not cards and trials_per_gpu is not None:
        raise UserError(f"--trials-per-gpu {trials_per_gpu}: no GPU was found; leave it out, and pass --workers")
    each = trials_per_gpu or 1
    number = workers or (len(cards) * each if trials_per_gpu else 1)
    room = len(cards) * each
    if cards and number > room:
        told = f"there is room for {room}, {each} on each of {len(cards)} GPUs"
        raise UserError(f"--workers {number}: {told}; pass --trials-per-gpu {-(-number // len(cards))}")
    parts = _parts(number) if number > 1 else [frozenset[int]()]
    return [Share({_VISIBLE: cards[at % len(cards)]} if cards else {}, part) for at, part in enumerate(parts)]


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA names them."""
    if _VISIBLE in os.environ:
        return [name.strip() for name in os.environ[_VISIBLE].split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number, _ in enumerate(sorted(_CARDS.iterdir()))] if _CARDS.is_dir() else []


@contextlib.contextmanager
def on_cores(share: Share) -> Iterator[None]:
    """A process that this thread starts inside the block runs on the share's cores: libraries count them as they load."""
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
    """The cores of each of so many workers; none where the system does not let them be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return [frozenset()] * number
    cores = sorted(os.sched_getaffinity(0))
    width = max(1, len(cores) // number)
    return [frozenset(cores[(at * width + step) % len(cores)] for step in range(width)) for at in range(number)]
