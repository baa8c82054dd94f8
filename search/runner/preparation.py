"""Prepares a worker: data, checks that need no training, studies, device, and the queue of warm starts."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import optuna

from objective import Context, Objective
from search.data.dataset import Dataset
from search.export import int8
from search.runner.adoption import adopt_trials, sources_to_adopt
from search.runner.events import (
    DatabaseUnavailable,
    DeviceReady,
    ImagesRead,
    PriorFitted,
    StudyLoaded,
    TrialsAdopted,
    Waiting,
)
from search.runner.job import Order
from search.runner.prior import prior_to_store, store_prior
from search.runner.reporter import Reporter
from search.storage.attributes import ADOPTED, ATTEMPT, INDEX, WARM_START
from search.storage.claims import claims_of
from search.storage.queue import Queued, Trials, queue
from search.study.config import StudyConfig
from search.study.dataset import guess_value, load_study_data
from search.study.records import counts, progress, ranked, records
from search.study.references import Reference
from search.study.run import DATA, Run, Studies, create
from search.tracking.trackers import with_trackers
from search.training.device import cpu_note
from search.training.result import Outcome
from search.training.trainer import Trainer
from search.tuning.candidate import DataFacts, renew_claims
from search.tuning.checks import check_before_loading, check_networks
from search.tuning.sources import check_data
from search.tuning.stopping import Limits

RETRY_SECONDS = 180.0  # for which a worker retries an unreachable database


@dataclass(frozen=True)
class Prepared:
    """Everything that a worker trains with."""

    run: Run
    studies: Studies
    objective: Objective
    references: tuple[Reference, ...]  # to train


def prepare(order: Order, reporter: Reporter, trainer: Trainer) -> Prepared:
    """Load the data, check the order against it, open the studies and set up the device.

    All checks precede the first import of Keras, and writing follows all checks.

    Raises:
        UserError: the data or the storage cannot be used.
    """
    run = order.run
    config = run.config
    networks = check_before_loading(config, order.references)
    is_search = not order.finals and not order.references
    sources = sources_to_adopt(run) if is_search else []
    prior_studies = prior_to_store(run) if is_search else ()
    data = _read_data(run, reporter)
    check_data(sources, data)
    warm_starts = check_networks(config, networks, data.name, DataFacts.of(data))
    if config.search.rank_by == "int8":
        int8.require_converter()  # the last check, as it imports Keras

    studies = create(
        run,
        data,
        patience=RETRY_SECONDS,
        grace_seconds=60 * config.search.grace_minutes,
        worker=order.worker,
        on_wait=lambda reason: reporter.send(DatabaseUnavailable(reason)),
    )
    search = config.search
    device_text = _device_text(trainer, data, config)
    reporter.send(
        DeviceReady(
            text=device_text,
            data=data.summary(),
            rank_by=search.rank_by,
            val_images=data.validated,
            metric=search.metric,
            classes=data.classes,
            guess=guess_value(studies.candidates.user_attrs[DATA], search.metric),
        )
    )
    prior = store_prior(studies.candidates, prior_studies) if prior_studies else None
    if prior is not None:
        reporter.send(PriorFitted(prior.text))
    claims = claims_of(studies.candidates)
    renew_claims(studies.candidates, claims, config, DataFacts.of(data))
    objective = Objective(
        Context(config, data, run.folder, order.worker, prior=prior),
        claims,
        Limits(config.stop, order.seconds_left, config.cost_metrics),
        with_trackers(reporter, config.log, run.name, run.folder),
        trainer,
    )
    if sources:
        policy = trainer.policy(config.recipe.precision)
        adopted = adopt_trials(run, studies, sources, data, policy, lambda: reporter.send(Waiting()))
        reporter.send(TrialsAdopted("\n".join(assessment.text("adopted") for assessment in adopted)))
    if not order.finals:
        _queue_warm_starts(studies.candidates, warm_starts)
        reporter.send(_loaded(config.trials, studies))
    gc.freeze()  # libraries and past trials: the collection after each trial need not look through them
    return Prepared(run, studies, objective, networks.references)


def _device_text(trainer: Trainer, data: Dataset, config: StudyConfig) -> str:
    """The device in a line, with a remark where it is too slow for the data."""
    text = trainer.prepare()
    epochs = config.recipe.epochs * max(data.folds, 1)
    note = cpu_note(len(data.y_train), data.input_shape, epochs) if "on the CPU" in text else None
    return f"{text}; {note}" if note else text


def _read_data(run: Run, reporter: Reporter) -> Dataset:
    def watch(done: int, total: int) -> None:
        reporter.send(ImagesRead(done, total))

    return load_study_data(run.config, run.folder, watch)


def _loaded(trials: int, studies: Studies) -> StudyLoaded:
    candidates = records(studies.candidates)
    best = next(iter(ranked(candidates)), None)
    score = (best.best_val_accuracy or 0.0, best.number) if best else None
    tally = counts(candidates)
    return StudyLoaded(
        trials,
        progress(candidates),
        score,
        trained=tally[Outcome.TRAINED],
        pruned_at_rung=tally[Outcome.PRUNED_AT_RUNG],
        rejected=tally[Outcome.REJECTED],
        failed=tally[Outcome.FAILED],
        adopted=tally.get("adopted", 0),
    )


def _queue_warm_starts(study: optuna.Study, warm_starts: list[tuple[str, dict[str, Any]]]) -> None:
    """Queue the known networks before anything else is proposed, once."""

    def missing(trials: Trials) -> list[Queued]:
        own = [trial for trial in trials if ADOPTED not in trial.user_attrs]
        if any(WARM_START not in trial.user_attrs for trial in own):
            return []
        present = {trial.user_attrs[WARM_START] for trial in own}
        return [
            (values, {INDEX: index, ATTEMPT: 1, WARM_START: name})
            for index, (name, values) in enumerate(warm_starts, len(trials) - len(own))
            if name not in present
        ]

    queue(study, missing)
