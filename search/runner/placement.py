"""Shares of a machine for its workers: a GPU, or some of the cores, set before the process starts."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from search.errors import UserError
from search.training.device import ASSIGNED, has_gpu_build, missing_gpu_cause

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
        cause = missing_gpu_cause()
        raise UserError(f"--trials-per-gpu {trials_per_gpu}: no GPU was found ({cause}); leave it out, and pass --workers")
    each = trials_per_gpu or 1
    number = workers or (len(cards) * each if trials_per_gpu else 1)
    room = len(cards) * each
    if cards and number > room:
        rule = f"there is room for {room}, {each} on each of {len(cards)} GPUs"
        raise UserError(f"--workers {number}: {rule}; pass --trials-per-gpu {-(-number // len(cards))}")
    parts = _parts(number) if number > 1 else [frozenset[int]()]
    return [_share(cards[index % len(cards)] if cards else None, part) for index, part in enumerate(parts)]


def idle_gpus(shares: Sequence[Share]) -> str | None:
    """A line about GPUs that no worker uses, with the option that uses them; None if there are none."""
    cards = gpus()
    used = {share.environment[_VISIBLE] for share in shares if _VISIBLE in share.environment}
    if len(used) >= len(cards):
        return None
    idle = ", ".join(card for card in cards if card not in used)
    return f"{len(used)} of {len(cards)} GPUs is used, idle: {idle}; --workers {len(cards)} trains on all of them"


def gpus() -> list[str]:
    """The GPUs that trainings of this process may use, as CUDA names them.

    Of CUDA_VISIBLE_DEVICES CUDA itself ignores the first invalid entry and all after it: a gap, an index without a GPU,
    `NoDevFiles` of a batch system. A GPU named twice counts once.
    """
    if not has_gpu_build():
        return []
    count = _count()
    if _VISIBLE not in os.environ:
        return [str(index) for index in range(count)]
    names = [name.strip() for name in os.environ[_VISIBLE].split(",")]
    valid = itertools.takewhile(lambda name: _is_valid(name, count), names)
    return list(dict.fromkeys(valid))


def _share(card: str | None, part: frozenset[int]) -> Share:
    return Share({} if card is None else {_VISIBLE: card, ASSIGNED: card}, part)


def _is_valid(name: str, count: int) -> bool:
    """True for the index of one of `count` GPUs (0: not known), or the UUID of a GPU or of a MIG instance."""
    if name.isdecimal():
        return not count or int(name) < count
    return name.startswith(("GPU-", "MIG-"))


def _count() -> int:
    """The GPUs that the driver lists, by its files or, where it has none (WSL2), by nvidia-smi."""
    if _CARDS.is_dir():
        return len(list(_CARDS.iterdir()))
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if program is None:
        return 0
    try:
        listed = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


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
