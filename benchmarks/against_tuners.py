"""The same job and wall clock for KerasTuner, plain Optuna with Keras' `fit`, and this project's samplers.

    python benchmarks/against_tuners.py prepare CIFAR.npz --out RUNS/tuners
    python benchmarks/against_tuners.py run --out RUNS/tuners [--minutes 10] [--seeds 3] [--contenders bayes "Optuna, fit"]
    python benchmarks/against_tuners.py report --out RUNS/tuners            # writes benchmarks/against_tuners.json

5,000 training, 1,000 validation and 2,000 test images of CIFAR-10 averaged to 16x16, the pyramid space of `ground_spaces`,
8 epochs, under 30,000 parameters. One contender at a time in a process of its own, on an otherwise idle machine: the
CPU-seconds beside the clock tell whether it was. At the end each winner is trained again on three seeds by one engine and
measured on the test images. Runs that are in RUNS/tuners/runs.jsonl are not run again.

KerasTuner belongs to this benchmark alone: `pip install --target FOLDER keras-tuner tensorboard`, then PYTHONPATH=FOLDER.
Without tensorboard each of its trials fails in silence. Its search ends after three networks over `max_model_size` in a
row unless told otherwise, and that limit counts trainable weights only, so that the builder checks the budget itself.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from ground_spaces import RECIPES, SPACES, Values
from small_images import averaged
from table import append

from search.files import read_json, write_json, write_text
from search.spaces.domains import Choices, Range
from search.study import study_file
from search.study.config import ROOT, StudyConfig
from search.tuning.candidate import Candidate, DataFacts, judge

HERE = Path(__file__).resolve().parent
TRAINING, TEST, SIDE, HOLDOUT = 6_000, 2_000, 16, 1 / 6
EPOCHS, BUDGET, RUNGS = 8, 30_000, {"first": 3, "factor": 3}
FINAL_SEEDS = (101, 102, 103)
OURS = {
    "ours, random": {"sampler": "random", "fit": "fill"},
    "ours, TPE and rungs": {"sampler": "tpe", "fit": "fill", "rungs": RUNGS},
    "ours, bayes": {"sampler": "bayes", "fit": "fill"},
    "ours, bayes and rungs": {"sampler": "bayes", "fit": "fill", "rungs": RUNGS},
}
Row = dict[str, Any]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("prepare", "run", "report", "one"))
    options.add_argument("data", type=Path, nargs="?", help="CIFAR-10 as .npz, for prepare")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--seed", type=int, default=0, help="of one")
    options.add_argument("--contenders", nargs="*", default=[*TUNERS, *OURS], choices=[*TUNERS, *OURS])
    asked = options.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    match asked.what:
        case "prepare":
            prepare(asked.data, asked.out)
        case "run":
            for seed in range(asked.seeds):
                for name in asked.contenders:
                    run(name, seed, asked.minutes, asked.out)
        case "one":
            TUNERS[asked.contenders[0]](asked.out, asked.minutes, asked.seed)
        case "report":
            report(asked.out)


# --- the job ---------------------------------------------------------------------------------------------------------


def prepare(path: Path, out: Path) -> None:
    """Write the images as an .npz of their own."""
    with np.load(path) as archive:
        parts = {name: averaged(archive[f"x_{name}"][:count], SIDE) for name, count in (("train", TRAINING), ("test", TEST))}
        labels = {name: archive[f"y_{name}"][: len(images)] for name, images in parts.items()}
    np.savez(out / "images.npz", **{f"x_{n}": x for n, x in parts.items()}, **{f"y_{n}": y for n, y in labels.items()})


def raw_study(out: Path, **search: Any) -> dict[str, Any]:
    """The study as the tables of a study file."""
    return {
        "base": 0.1,
        "data": {"path": str(out / "images.npz"), "normalize": True, "holdout": HOLDOUT},
        "budget": {"params": BUDGET},
        "space": SPACES["pyramid"],
        "recipe": RECIPES["pyramid"] | {"epochs": EPOCHS},
        "search": search,
    }


def dataset_of(config: StudyConfig) -> Any:
    """The images, with the splits of every contender."""
    from search.data.dataset import load_dataset

    path = Path(str(config.data.path))
    return load_dataset(None, path, protocol="holdout", holdout=config.data.holdout, images=None)


def proposal_of(config: StudyConfig, facts: DataFacts, values: Values) -> Candidate | None:
    """The candidate, or None where it is over the budget or cannot exist."""
    judged = judge(config, facts, values)
    return judged if isinstance(judged, Candidate) else None


def run(name: str, seed: int, minutes: float, out: Path) -> None:
    """One contender on one seed, its winner trained again; appended to the stored runs."""
    if any((row["contender"], row["seed"], row["minutes"]) == (name, seed, minutes) for row in stored(out)):
        return
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    folder = out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}-{minutes:g}"
    row = (_run_ours if name in OURS else _run_tuner)(name, seed, minutes, out, folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row |= {"wall_s": round(time.time() - started, 1), "cpu_s": round(cpu, 1), "load": os.getloadavg()[0]}
    if row["history"]:
        row["test"] = trained_again(out, max(row["history"], key=lambda entry: entry["accuracy"])["values"])
    append(out / "runs.jsonl", {"contender": name, "seed": seed, "minutes": minutes} | row)
    print(name, seed, len(row["history"]), "trained,", row["wasted"], "wasted,", row.get("test"), flush=True)


def trained_again(out: Path, values: Values) -> list[float]:
    """Test accuracies of a winner, by the weights of its best epoch, on the same seeds for all."""
    from search.training.device import prepare_device
    from search.training.measures import MEASURES
    from search.training.train import confusion_of, fit

    prepare_device()
    config = study_file.parse(raw_study(out), "benchmarks/against_tuners.py")
    data = dataset_of(config)
    proposal = proposal_of(config, DataFacts.of(data), values)
    assert proposal is not None
    scores = []
    for seed in FINAL_SEEDS:
        training = fit(proposal.architecture, data, proposal.recipe, seed=seed)
        given = (proposal.architecture, training.best_weights, training.pixels, data.x_test, data.y_test)
        scores.append(MEASURES["accuracy"].compute(confusion_of(*given)))
    return [round(score, 4) for score in scores]


# --- this project ----------------------------------------------------------------------------------------------------


def _run_ours(name: str, seed: int, minutes: float, out: Path, folder: Path) -> Row:
    """`python -m search run`, stopped by the clock; trials are read from its database."""
    import optuna

    from search.storage.attributes import OUTCOME
    from search.storage.urls import sqlite_url

    folder.mkdir(parents=True, exist_ok=True)
    raw = raw_study(out, **OURS[name], seed=seed, trials=10_000)
    write_text(folder / "study.toml", _toml(raw))
    command = [sys.executable, "-m", "search", "run", str(folder / "study.toml"), "--out", str(folder / "run")]
    started = time.time()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        process.wait(60 * minutes)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
    url = sqlite_url(folder / "run")
    names = [summary.study_name for summary in optuna.get_all_study_summaries(url)]
    trials = optuna.load_study(study_name=next(n for n in names if not n.endswith(".references")), storage=url).trials
    ended = [trial for trial in trials if trial.user_attrs.get(OUTCOME) == "trained" and trial.value is not None]
    history = [
        {
            "at": round(trial.datetime_complete.timestamp() - started, 1),
            "accuracy": trial.value,
            "values": study_file.parse(raw, name).declared(trial.params),
        }
        for trial in ended
    ]
    pruned = sum(trial.user_attrs.get(OUTCOME) == "pruned_at_rung" for trial in trials)
    return {"history": history, "pruned": pruned, "wasted": 0}


def _toml(table: dict[str, Any]) -> str:
    """A study file of these tables, each value inline."""
    top = [f"{key} = {_inline(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            top += [f"[{key}]", *(f"{name} = {_inline(entry)}" for name, entry in value.items())]
    return "\n".join(top) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_inline(entry)}" for key, entry in value.items()) + "}"
    return json.dumps(value)


# --- tuners that train with Keras' fit -------------------------------------------------------------------------------


def _run_tuner(name: str, seed: int, minutes: float, out: Path, folder: Path) -> Row:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "one", "--out", str(out), "--minutes", str(minutes), "--seed", str(seed)]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen([*command, "--contenders", name], stdout=log, stderr=log)
        try:
            process.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    path = out / f"tuner-{name}-{seed}.json"
    row: Row = read_json(path) if path.exists() else {"history": [], "pruned": 0, "wasted": 0}
    path.unlink(missing_ok=True)
    return row


class _Job:
    """Input of a tuner: the study, the images as floats, and the log of its trainings, written after each."""

    def __init__(self, out: Path, name: str, seed: int) -> None:
        from search.training.device import prepare_device
        from search.training.train import pixels_of

        prepare_device()
        self.started = time.time()
        self.config = study_file.parse(raw_study(out), "benchmarks/against_tuners.py")
        self.data = dataset_of(self.config)
        self.facts = DataFacts.of(self.data)
        pixels = pixels_of(self.data, self.config.recipe_of({n: d.first for n, d in self.config.parameters.items()}))
        self.train = np.asarray(pixels.apply(self.data.x_train)), self.data.y_train
        self.val = np.asarray(pixels.apply(self.data.x_val)), self.data.y_val
        self.path = out / f"tuner-{name}-{seed}.json"
        self.row: Row = {"history": [], "pruned": 0, "wasted": 0}

    def note(self, values: Values | None, accuracy: float = 0.0, *, pruned: bool = False) -> None:
        """Store a training, or a proposal over the budget if there are no values."""
        if values is None or pruned:
            self.row["pruned" if pruned else "wasted"] += 1
        else:
            at = round(time.time() - self.started, 1)
            self.row["history"].append({"at": at, "accuracy": float(accuracy), "values": values})
        write_json(self.path, self.row)

    def compiled(self, proposal: Candidate) -> tuple[Any, list[Any], int]:
        """(model, callbacks of the schedule, batch size), as a user of Keras would write them."""
        import keras

        from search.training.model import build
        from search.training.recipe import rate_at

        recipe = proposal.recipe
        network = build(proposal.architecture)
        layers = [keras.Input(proposal.architecture.input)]
        if recipe.augment.flip:
            layers.append(keras.layers.RandomFlip("horizontal"))
        if recipe.augment.crop:
            share = recipe.augment.crop / SIDE
            layers.append(keras.layers.RandomTranslation(share, share, fill_mode="reflect"))
        model = keras.Sequential([*layers, network])
        model.compile(
            optimizer=keras.optimizers.Adam(recipe.learning_rate),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        steps = -(-len(self.train[0]) // recipe.batch_size)

        class Rate(keras.callbacks.Callback):  # type: ignore[misc]
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self.base = epoch * steps

            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                self.model.optimizer.learning_rate = rate_at(recipe, self.base + batch, steps)

        return model, [Rate()], recipe.batch_size


def optuna_with_fit(out: Path, minutes: float, seed: int) -> None:
    """Optuna as its examples use it: TPE, median pruner, the budget as a constraint that prunes."""
    import keras
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    job = _Job(out, "Optuna, fit", seed)
    keras.utils.set_random_seed(seed)

    def objective(trial: optuna.Trial) -> float:
        values = {name: domain.suggest(trial, name) for name, domain in job.config.parameters.items()}
        proposal = proposal_of(job.config, job.facts, values)
        if proposal is None:
            job.note(None)
            raise optuna.TrialPruned
        model, callbacks, batch = job.compiled(proposal)

        class Report(keras.callbacks.Callback):  # type: ignore[misc]
            best = 0.0

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.best = max(self.best, logs["val_accuracy"])
                trial.report(logs["val_accuracy"], epoch)
                if trial.should_prune():
                    job.note(values, pruned=True)
                    raise optuna.TrialPruned

        report = Report()
        model.fit(
            *job.train, batch_size=batch, epochs=EPOCHS, validation_data=job.val, callbacks=[*callbacks, report], verbose=0
        )
        job.note(values, report.best)
        return report.best

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=2),
    )
    study.optimize(objective, timeout=60 * minutes)


def keras_tuner_search(out: Path, minutes: float, seed: int) -> None:
    """KerasTuner's Bayesian optimisation; a network over the budget is a failed trial."""
    import keras
    import keras_tuner

    job = _Job(out, "KerasTuner", seed)
    keras.utils.set_random_seed(seed)

    def values_of(hyperparameters: Any) -> Values:
        return {name: _asked(hyperparameters, name, domain) for name, domain in job.config.parameters.items()}

    class Model(keras_tuner.HyperModel):  # type: ignore[misc]
        def build(self, hp: Any) -> Any:
            proposal = proposal_of(job.config, job.facts, values_of(hp))
            if proposal is None:
                job.note(None)
                raise keras_tuner.errors.FailedTrialError("over the budget")
            model, self.schedule, self.batch = job.compiled(proposal)
            return model

        def fit(self, hp: Any, model: Any, *args: Any, callbacks: list[Any], **kwargs: Any) -> Any:
            kwargs |= {"batch_size": self.batch, "callbacks": [*callbacks, *self.schedule]}
            history = model.fit(*args, **kwargs)
            job.note(values_of(hp), max(history.history["val_accuracy"]))
            return history

    tuner = keras_tuner.BayesianOptimization(
        Model(), "val_accuracy", max_trials=10_000, seed=seed, directory=str(out / f"kerastuner-{seed}-{time.time():.0f}"),
        max_consecutive_failed_trials=10_000, max_retries_per_trial=0,
    )  # fmt: skip
    tuner.search(*job.train, epochs=EPOCHS, validation_data=job.val, verbose=0)


def _asked(hp: Any, name: str, domain: Choices | Range) -> Any:
    if isinstance(domain, Choices):
        return hp.Choice(name, list(domain.values))
    if domain.is_whole:
        return hp.Int(name, int(domain.low), int(domain.high), step=int(domain.step or 1))
    sampling = "log" if domain.log else "linear"
    value = hp.Float(name, domain.low, domain.high, step=domain.step, sampling=sampling)
    return value if domain.step is None else round(value, 10)


TUNERS: dict[str, Callable[[Path, float, int], None]] = {
    "KerasTuner": keras_tuner_search,
    "Optuna, fit": optuna_with_fit,
}


# --- report ----------------------------------------------------------------------------------------------------------


def stored(out: Path) -> list[Row]:
    path = out / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(out: Path) -> None:
    """Print and write a line for each run."""
    rows = []
    for row in stored(out):
        bests = [max((e["accuracy"] for e in row["history"] if e["at"] <= 60 * m), default=0.0) for m in (2, 5, 10)]
        line = {
            key: row.get(key)
            for key in ("contender", "seed", "minutes", "pruned", "wasted", "wall_s", "cpu_s", "load", "test")
        }
        line |= {"trained": len(row["history"]), "best_at_2_5_10_minutes": [round(best, 4) for best in bests]}
        line["test_mean"] = round(statistics.mean(row["test"]), 4) if row.get("test") else None
        rows.append(line)
        print(line)
    write_json(HERE / "against_tuners.json", rows)


if __name__ == "__main__":
    main()
