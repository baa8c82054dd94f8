"""Simulated runs of the queue of trials: real storage code on SQLite, workers and supervisors under a seeded scheduler.

Real: `search.storage` (queue, recovery, claims, locks, heartbeats, retries, caches), `run_trial` and `has_room` of
`search.runner.trial`, and the queue of `search.finals.run`. Written anew here: the loops of the worker and the supervisor,
which call these in the order of `search.runner.loop`, `search.finals.run` and `search.runner.supervisor`, and the training.
Faults come before a transaction, before its commit and after it; the start of a process has none.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import optuna
from optuna.trial import TrialState
from sqlalchemy import event

from objective import NullObserver
from search.finals.run import _queue_trainings
from search.runner import trial as runner_trial
from search.runner.trial import has_room, run_trial
from search.storage import heartbeat, locks
from search.storage.adoption import adopt
from search.storage.claims import claims_of
from search.storage.database import open_storage
from search.storage.queue import begin
from search.storage.recovery import recover, requeue
from search.storage.resilient import ResilientStorage
from search.storage.urls import sqlite_url
from search.study.records import progress, records
from search.training.result import Outcome
from tests.simulation.invariants import changes, check_adopted, check_candidates, check_finals, note_changes
from tests.simulation.network import NETWORK, NetworkSampler, train_candidate, train_finalist, trained_elsewhere
from tests.simulation.scheduler import Fault, Process, Scheduler, SimulatedClock, SimulatedThreading

GRACE = 60.0  # seconds without a heartbeat
PATIENCE = 600.0  # seconds that a call is repeated
WAIT = 15.0  # seconds between two looks of a worker at others
POLL = 1.0  # seconds between two looks of a supervisor at its worker
PAIRS = [("a", 0), ("b", 0)]  # trainings of the finals: (finalist, seed)
UNWANTED = ("c", 0)  # queued by an earlier command that asked for more finalists


@dataclass(frozen=True)
class Result:
    """Result of one run.

    Attributes:
        trace: its faults in their order, each with its step, time and process.
    """

    seed: int
    steps: int
    faults: Counter[Fault]
    trace: tuple[str, ...]
    violations: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {self.steps} steps", *self.trace, *(f"VIOLATION: {text}" for text in self.violations)]
        return "\n  ".join(lines)


class Simulator:
    """Runs seeds on one database in a folder, each as two studies of their own; storages are opened once, which is slow."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._storages = folder, list[ResilientStorage]()
        self._scheduler: Scheduler | None = None
        self._runs = 0
        note_changes(self.storage(0).engine)

    def run(self, seed: int) -> Result:
        """Simulate the run of this seed."""
        rng = random.Random(seed)
        self._scheduler = Scheduler(rng, faults=rng.choice((1, 4, 8, 12)), rate=rng.choice((0.01, 0.03, 0.1)), grace=GRACE)
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        folder.mkdir()
        with (
            mock.patch.object(heartbeat, "threading", SimulatedThreading(self._scheduler)),
            mock.patch.object(runner_trial, "gc", SimpleNamespace(collect=lambda: None)),
        ):
            return _Run(self, self._scheduler, folder, seed).simulate()

    def storage(self, index: int) -> ResilientStorage:
        """The storage of this index; a process of a run has one for itself."""
        while index >= len(self._storages):
            self._storages.append(self._open())
        return self._storages[index]

    def _open(self) -> ResilientStorage:
        scheduler, self._scheduler = self._scheduler, None
        storage = open_storage(sqlite_url(self._folder), grace_seconds=GRACE)
        engine = storage.engine
        event.listen(engine, "connect", _without_sync)
        connect, commit = engine.raw_connection, engine.dialect.do_commit
        engine.raw_connection = lambda: self._connect(connect)  # each transaction begins with it
        engine.dialect.do_commit = lambda connection: self._commit(partial(commit, connection))
        self._scheduler = scheduler
        return storage

    def _connect(self, connect: Callable[[], Any]) -> Any:
        if self._scheduler is not None:
            self._scheduler.before_begin()
        return connect()

    def _commit(self, commit: Callable[[], None]) -> None:
        if self._scheduler is not None:
            self._scheduler.commit(commit)
        else:
            commit()


class _Run:
    """One simulated run: supervisors, each with a worker, until the candidates and the finals are trained."""

    def __init__(self, simulator: Simulator, scheduler: Scheduler, folder: Path, seed: int) -> None:
        self._simulator, self._scheduler, self._folder, self._seed = simulator, scheduler, folder, seed
        rng = scheduler.rng
        self._most, self._slots = rng.choice((1, 1, 2, 3)), rng.choice((2, 2, 3))
        self._pairs = PAIRS if rng.random() < 0.5 else []
        self._networks = 6 + 3 * self._most
        elsewhere = random.Random(f"{seed} adopted")
        n_adopted = elsewhere.choice((1, 2)) if seed % 4 == 3 else 0
        self._adopted = elsewhere.sample(range(self._networks), n_adopted)  # networks that another run has trained
        self._context = SimpleNamespace(folder=folder)
        self._processes = 0

    def simulate(self) -> Result:
        """Simulate it and check the invariants."""
        scheduler, rng = self._scheduler, self._scheduler.rng
        setup = Process("setup")
        candidates, finals = self._open(setup, is_new=True)
        queued = rng.sample(range(self._networks), rng.randint(0, 2))
        for network in queued:
            candidates.enqueue_trial({NETWORK: network})  # by the user, without an index
        _queue_trainings(finals, [*self._pairs[:1], UNWANTED], self._context)
        for slot in range(self._slots):
            self._start_supervisor(slot)
        scheduler.run()
        candidates, finals = self._open(setup)
        violations = [
            *scheduler.errors,
            *changes(self._simulator.storage(0).engine),
            *check_candidates(candidates, claims_of(candidates).held(), self._most),
            *check_adopted(candidates, claims_of(candidates).held(), self._adopted, len(queued)),
            *check_finals(finals, len(self._pairs)),
        ]
        return Result(self._seed, scheduler.steps, scheduler.faults, tuple(scheduler.trace), tuple(violations))

    def _open(self, process: Process, *, is_new: bool = False) -> tuple[optuna.Study, optuna.Study]:
        """The studies of candidates and finals, with connections and caches of this process."""
        self._scheduler.is_quiet = True
        storage = self._simulator.storage(self._processes)
        self._processes += 1
        clock = SimulatedClock(self._scheduler, process)
        storage.__init__(storage.database, patience=PATIENCE, grace_seconds=GRACE, clock=clock)  # type: ignore[misc]
        names = self._folder.name, f"{self._folder.name}.finals"
        open_study = partial(optuna.create_study, direction="maximize") if is_new else optuna.load_study
        candidates, finals = (open_study(storage=storage, study_name=name) for name in names)
        candidates.sampler = finals.sampler = NetworkSampler(self._seed, claims_of(candidates))
        self._scheduler.is_quiet = False
        return candidates, finals

    # --- supervisor ---

    def _start_supervisor(self, slot: int, delay: float = 0.0) -> None:
        process = Process(f"supervisor {slot}", on_lost=lambda: self._restart(slot))
        self._scheduler.start(process, lambda: self._supervise(slot, process), delay)

    def _restart(self, slot: int) -> None:
        """Start a lost machine again, sooner or later or, the first excepted, never."""
        rng = self._scheduler.rng
        if slot == 0 or rng.random() < 0.5:
            self._start_supervisor(slot, delay=rng.uniform(0.0, 2 * GRACE))

    def _supervise(self, slot: int, process: Process) -> None:
        """Start a worker, replace it while it crashes, and requeue its trial each time."""
        studies = self._open(process)
        with _named(self._folder, slot) as name:
            for study in studies:
                recover(study, self._folder)
            is_done = False
            while not is_done:
                with _named(self._folder, slot, name) as worker_name:
                    worker = Process(f"worker {slot}", parent=process)
                    process.children.append(worker)
                    actor = self._scheduler.start(worker, partial(self._work, worker, worker_name))
                    while not actor.is_done:
                        self._scheduler.sleep(POLL)
                    is_done = not worker.is_dead
                    outcome = Outcome.INTERRUPTED if is_done else Outcome.FAILED
                    for study in studies:
                        requeue(study, worker=worker_name, outcome=outcome, reason="the worker ended")

    # --- worker ---

    def _work(self, process: Process, name: str) -> None:
        candidates, finals = self._open(process)
        context = SimpleNamespace(worker=name, folder=self._folder)
        objective: Any = SimpleNamespace(context=context, observer=NullObserver())
        for network in self._adopted:
            adopt(candidates, trained_elsewhere(network, self._networks))
        self._train_candidates(candidates, objective)
        self._train_finals(finals, objective)

    def _train_candidates(self, study: optuna.Study, objective: Any) -> None:
        train = partial(train_candidate, claims=study.sampler.claims, networks=self._networks, sleep=self._scheduler.sleep)
        while True:
            recover(study, self._folder)
            if progress(records(study)) >= self._most:
                return
            trial = begin(
                study, objective.context.worker, has_room=lambda trials, others: has_room(trials, self._most - others)
            )
            if trial is not None:
                run_trial(study, trial, train, objective)
            else:
                self._scheduler.sleep(WAIT)

    def _train_finals(self, study: optuna.Study, objective: Any) -> None:
        train = partial(train_finalist, sleep=self._scheduler.sleep)
        _queue_trainings(study, self._pairs, self._context)
        while True:
            recover(study, self._folder)
            states = [trial.state for trial in study.get_trials(deepcopy=False)]
            if TrialState.WAITING in states:
                trial = begin(study, objective.context.worker, new=lambda trials: None)
                if trial is not None:
                    run_trial(study, trial, train, objective)
            elif TrialState.RUNNING in states:
                self._scheduler.sleep(WAIT)
            else:
                return


@contextmanager
def _named(folder: Path, slot: int, supervisor: str | None = None) -> Iterator[str]:
    """The name of a supervisor, or of its worker, with its lock; the last machine is another, whose locks are not seen."""
    with ExitStack() as stack:
        if supervisor is None:
            name = stack.enter_context(locks.supervisor_lock(folder))
        else:
            name = stack.enter_context(locks.worker_lock(folder, supervisor))[0]
        yield f"elsewhere/{name.partition('/')[2]}" if slot == 2 and supervisor is not None else name


@contextmanager
def simulator() -> Iterator[Simulator]:
    """A simulator in a temporary folder, in memory where the system has one there."""
    memory = Path("/dev/shm")
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            yield Simulator(Path(folder))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _without_sync(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")  # power cuts are not simulated
