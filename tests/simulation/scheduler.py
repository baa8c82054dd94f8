"""A seeded scheduler of simulated processes, with a clock and faults of its own.

Each actor is a thread of a simulated process, and exactly one actor runs at a time. It passes control back at every
transaction boundary and at every wait, so that the seed alone decides in which order transactions follow each other. Threads
and not generators, as the code under test has boundaries deep inside its own calls.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy.orm import Session

from search.storage.clock import Clock

EPOCH = datetime(2026, 1, 1)
LATENCY = 1.0  # most seconds between two transactions of an actor, so that transactions of several actors mix
MOST_STEPS = 4_000  # boundaries in one run; a fault-free run has about 100 for each trial


class Fault(StrEnum):
    """Faults at a transaction boundary."""

    CRASH = "crash of a process"
    MACHINE = "loss of a supervisor with its worker"
    HALT = "halt past the grace period"
    UNDONE = "lost answer, not done"
    DONE = "lost answer, done"
    DATABASE_CLOCK = "jump of the database's clock"
    LOCAL_CLOCK = "jump of a process's clock"


WEIGHTS = {  # how often each comes, relative to the others
    Fault.CRASH: 5,
    Fault.MACHINE: 2,
    Fault.HALT: 3,
    Fault.UNDONE: 2,
    Fault.DONE: 4,
    Fault.DATABASE_CLOCK: 2,
    Fault.LOCAL_CLOCK: 1,
}
CLUSTER = 20  # steps after a fault in which others are more likely, so that they hit the recovery from the first
CLUSTER_FACTOR = 4


class Crashed(BaseException):
    """Unwinds the actors of a process that is dead; no transaction of such a process succeeds."""


@dataclass
class Process:
    """A simulated process.

    Attributes:
        parent: its supervisor, None for a supervisor.
        on_lost: called when it is killed.
    """

    name: str
    parent: Process | None = None
    on_lost: Callable[[], None] = lambda: None
    is_dead: bool = False
    halted_until: float = 0.0
    clock_offset: float = 0.0  # seconds
    children: list[Process] = field(default_factory=list)

    def kill(self) -> None:
        """End it and its children at once."""
        if not self.is_dead:
            self.is_dead = True
            for child in self.children:
                child.kill()
            self.on_lost()


class Actor:
    """A thread of a simulated process."""

    def __init__(self, scheduler: Scheduler, process: Process, body: Callable[[], None], delay: float) -> None:
        self.process, self.wake, self.is_done = process, scheduler.now + delay, False
        self.error: Exception | None = None
        self.control = threading.Semaphore(0)
        self._scheduler, self._body = scheduler, body
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def resumes(self) -> float:
        """Time at which it continues."""
        return max(self.wake, self.process.halted_until)

    def pause(self, seconds: float) -> None:
        """Let other actors run for at least these seconds."""
        if not self.process.is_dead:
            self.wake = self._scheduler.now + seconds
            self._scheduler.control.release()
            self.control.acquire()
        if self.process.is_dead:
            raise Crashed

    def _run(self) -> None:
        self.control.acquire()
        try:
            if not self.process.is_dead:
                self._body()
        except Crashed:
            pass
        except Exception as error:
            self.error = error
        finally:
            self.is_done = True
            self._scheduler.control.release()


class Scheduler:
    """Runs actors in a seeded order until none is left.

    Args:
        faults: number of faults at most.
        rate: probability of a fault at a boundary.
        grace: seconds of the grace period.
    """

    def __init__(self, rng: random.Random, *, faults: int, rate: float, grace: float) -> None:
        self.rng, self.faults_left, self.rate, self.grace = rng, faults, rate, grace
        self.now, self.database_offset, self.steps = 0.0, 0.0, 0
        self.control = threading.Semaphore(0)
        self.current: Actor | None = None  # None while no simulated process runs: then there are no boundaries
        self.is_quiet = False  # True during the start of a process, which is not simulated
        self.faults = Counter[Fault]()
        self.trace: list[str] = []  # faults in their order
        self.errors: list[str] = []
        self._actors: list[Actor] = []
        self._cluster_end = 0

    def start(self, process: Process, body: Callable[[], None], delay: float = 0.0) -> Actor:
        """Add an actor."""
        actor = Actor(self, process, body, delay)
        self._actors.append(actor)
        return actor

    def run(self) -> None:
        """Run all actors to their end; after `MOST_STEPS` kill them and note the error."""
        while self._actors:
            if self.steps > MOST_STEPS and not self.errors:
                self.errors.append(f"the study has not ended after {MOST_STEPS} steps and {self.now:.0f} s")
                for actor in self._actors:
                    actor.process.on_lost = lambda: None
                    actor.process.kill()
            self._resume(self._next())

    def sleep(self, seconds: float) -> None:
        """Let the running actor wait."""
        if self.current is not None and not self.is_quiet:
            self.current.pause(seconds)

    def before_begin(self) -> None:
        """Boundary before a transaction.

        Raises:
            sqlite3.OperationalError: the answer is lost, and nothing was done.
        """
        if self.current is None or self.is_quiet:
            return
        self.steps += 1
        self.current.pause(self.rng.uniform(0, LATENCY))
        if self._inject(tuple(fault for fault in Fault if fault != Fault.DONE)) == Fault.UNDONE:
            raise _lost()

    def commit(self, commit: Callable[[], None]) -> None:
        """Commit a transaction, between two boundaries.

        Raises:
            sqlite3.OperationalError: the answer is lost; the transaction was done, or was not.
        """
        if self.current is None or self.is_quiet:
            return commit()
        self.steps += 1
        if self._inject((Fault.CRASH, Fault.MACHINE, Fault.UNDONE)) == Fault.UNDONE:
            raise _lost()
        commit()
        fault = self._inject((Fault.CRASH, Fault.MACHINE, Fault.HALT, Fault.DONE))
        self.current.pause(self.rng.uniform(0, LATENCY))
        if fault == Fault.DONE:
            raise _lost()

    def _next(self) -> Actor:
        for actor in self._actors:  # unwound first
            if actor.process.is_dead:
                return actor
        self.now = max(self.now, min(actor.resumes for actor in self._actors))
        return self.rng.choice([actor for actor in self._actors if actor.resumes <= self.now])

    def _resume(self, actor: Actor) -> None:
        self.current = actor
        actor.control.release()
        self.control.acquire()
        self.current = None
        if actor.is_done:
            self._actors.remove(actor)
            if actor.error is not None:
                self.errors.append(f"{actor.process.name} raised {type(actor.error).__name__}: {actor.error}")

    def _inject(self, kinds: tuple[Fault, ...]) -> Fault | None:
        """Perhaps inject one of these faults into the running process.

        Raises:
            Crashed: the process is dead.
        """
        assert self.current is not None
        process = self.current.process
        if process.is_dead:
            raise Crashed
        rate = self.rate * (CLUSTER_FACTOR if self.steps < self._cluster_end else 1)
        if self.faults_left <= 0 or self.rng.random() >= rate:
            return None
        fault = self.rng.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
        self._cluster_end = self.steps + CLUSTER
        self.faults_left -= 1
        self.faults[fault] += 1
        self.trace.append(f"step {self.steps}, {self.now:.1f} s: {process.name}: {fault}")
        match fault:
            case Fault.CRASH:
                process.kill()
            case Fault.MACHINE:
                (process.parent or process).kill()
            case Fault.HALT:
                process.halted_until = self.now + self.grace * self.rng.uniform(1.0, 2.5)
                self.current.pause(0.0)
            case Fault.DATABASE_CLOCK:
                self.database_offset += self.grace * self.rng.uniform(-2.0, 2.0)
            case Fault.LOCAL_CLOCK:
                process.clock_offset += self.rng.uniform(-86_400, 86_400)
            case Fault.DONE | Fault.UNDONE:
                pass
        if process.is_dead:
            raise Crashed
        return fault


class SimulatedClock(Clock):
    """The scheduler's time, as one process sees it."""

    def __init__(self, scheduler: Scheduler, process: Process) -> None:
        self._scheduler, self._process = scheduler, process

    def monotonic(self) -> float:
        return self._scheduler.now

    def sleep(self, seconds: float) -> None:
        self._scheduler.sleep(seconds)

    def local_time(self) -> datetime:
        return EPOCH + timedelta(seconds=self._scheduler.now + self._process.clock_offset)

    def heartbeat_time(self, session: Session) -> datetime:
        return EPOCH + timedelta(seconds=self._scheduler.now + self._scheduler.database_offset)


class SimulatedThreading:
    """The part of the module `threading` that heartbeats use."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def Event(self) -> _Event:  # noqa: N802 as in `threading`
        """As `threading.Event`."""
        return _Event(self._scheduler)

    def Thread(self, target: Callable[[], None], name: str, daemon: bool) -> _Thread:  # noqa: N802 as in `threading`
        """As `threading.Thread`."""
        return _Thread(self._scheduler, target)


class _Event:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._is_set = scheduler, False
        self._waiting: Actor | None = None

    def set(self) -> None:
        self._is_set = True
        if self._waiting is not None:
            self._waiting.wake = self._scheduler.now

    def wait(self, seconds: float) -> bool:
        if not self._is_set:
            self._waiting = self._scheduler.current
            self._scheduler.sleep(seconds)
            self._waiting = None
        return self._is_set


class _Thread:
    def __init__(self, scheduler: Scheduler, target: Callable[[], None]) -> None:
        self._scheduler, self._target = scheduler, target

    def start(self) -> None:
        assert self._scheduler.current is not None
        self._actor = self._scheduler.start(self._scheduler.current.process, self._target)

    def join(self) -> None:
        while not self._actor.is_done:
            self._scheduler.sleep(0.1)


def _lost() -> sqlite3.OperationalError:
    return sqlite3.OperationalError("database is locked")
