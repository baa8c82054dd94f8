"""Search methods under a budget: whole studies on a model of accuracy fitted to real trainings.

    python benchmarks/search_methods.py seeds --data CIFAR.npz     # how far seeds spread a training, 3 minutes
    python benchmarks/search_methods.py run [--seeds 40] [--quick]

Contenders have the same number of trained trials: plain Optuna as it is commonly used (its default sampler; the objective
constrains and prunes what is over the budget, and trains a network again where it is proposed again), and this project's
studies, which refuse both before Optuna stores them, with fit = "reject" and "fill". `run` reads the accuracies that
`benchmarks/rungs.py short` wrote and what `seeds` found, and writes benchmarks/search_methods.json and .html.

The space is that of benchmarks/rungs.py with widths up to 256 in place of 160, so that 100,000 parameters are a bound too.
The model has seen networks under 30,000 only: what it says of larger ones is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from search.study import study_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a study a process, a process a core
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import optuna
import rungs
from sqlalchemy import create_engine

from search.budget.cost import compute_cost
from search.files import read_json, write_json, write_text
from search.finals.statistics import compare, rank
from search.networks.architecture import Architecture
from search.networks.geometry import resolve
from search.networks.layers import Activation, Dropout, SeparableConv
from search.seeds import derive, generator
from search.storage.attributes import REFUSED
from search.storage.claims import Claims, claims_of
from search.storage.database import open_storage
from search.storage.urls import sqlite_url
from search.study.config import StudyConfig
from search.tuning.candidate import Candidate, DataFacts, judge
from search.tuning.sampler import BudgetedSampler, inner_sampler
from space import Pyramid, build

HERE = Path(__file__).resolve().parent
BUDGETS = (100_000, 30_000, 12_000)
SPACE: dict[str, Any] = rungs.SPACE | {"width": {"low": 16, "high": 256, "step": 8}}
FACTS = DataFacts((16, 16, 3), 10, "")
optuna.logging.set_verbosity(optuna.logging.ERROR)
TRAINED, MARKS = 40, (10, 20, 40)
MOST_STORED = 2_000  # trials of a study, should it never get to its trained ones
STORED, TIMED, TIMED_BUDGET = (10, 100, 1_000), 20, 30_000  # trials that a proposal is timed at, how often, and where
SEED_NETS, SEEDS = (0, 2, 3, 6, 8, 11), (100, 101)  # of the candidates of benchmarks/rungs.py, beside their own seed

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Contender:
    """A way to search; without `fit` it is Optuna alone."""

    name: str
    sampler: str
    fit: str | None
    colour: str  # of Okabe and Ito's, told apart by all
    dash: str


PLAIN = "plain Optuna, TPE"
CONTENDERS = (
    Contender(PLAIN, "tpe", None, "#000000", "dash"),
    Contender("reject, TPE", "tpe", "reject", "#0072B2", "solid"),
    Contender("fill, TPE", "tpe", "fill", "#D55E00", "solid"),
    Contender("reject, random", "random", "reject", "#56B4E9", "dot"),
    Contender("fill, random", "random", "fill", "#E69F00", "dot"),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("seeds", "run"))
    options.add_argument("--data", type=Path, help="CIFAR-10 as .npz, for seeds; without it Keras downloads it")
    options.add_argument("--trainings", type=Path, default=HERE / "short_trainings.json")
    options.add_argument("--spread", type=Path, default=HERE / "search_methods_seeds.json")
    options.add_argument("--seeds", type=int, default=40, help="studies of each contender at each budget")
    options.add_argument("--quick", action="store_true", help="three seeds, ten trained trials: whether it works at all")
    options.add_argument("--out", type=Path, default=HERE / "search_methods")
    asked = options.parse_args()
    if asked.what == "seeds":
        train_seeds(asked.spread, asked.data)
        return
    seeds, trained, stored = (3, 10, STORED[:2]) if asked.quick else (asked.seeds, TRAINED, STORED)
    model = fitted(asked.trainings, asked.spread)
    found: dict[str, Any] = {"machine": machine(), "seeds": seeds, "trained": trained, "space": SPACE, "model": model.about}
    print(json.dumps(model.about, indent=1), flush=True)
    found["cells"] = cells(studies(model, seeds, trained), trained)
    found["milliseconds"] = [timed(one, count, model) for one in CONTENDERS if one.sampler == "tpe" for count in stored]
    print(table(found))
    write_json(asked.out.with_suffix(".json"), found)
    write_text(asked.out.with_suffix(".html"), page(found))


# --- the model of accuracy -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """Best validation accuracy of a short training, as a function of the network."""

    predict: Callable[[Any], Any]  # rows of features to accuracies
    noise: float  # standard deviation between trainings of a network
    about: dict[str, Any]

    def true(self, architecture: Architecture) -> float:
        """The accuracy without noise."""
        return float(self.predict([list(features(architecture).values())])[0])


def fitted(trainings: Path, spread: Path) -> Model:
    """The model through all trainings, with how well it foretells each of them from the others."""
    from scipy.stats import spearmanr

    networks, rows = Pyramid.model_validate(rungs.SPACE), read_json(trainings)
    described = [features(build(networks, row["values"], FACTS.input_shape, FACTS.classes)) for row in rows]
    names = list(described[0])
    x, y = np.array([list(one.values()) for one in described]), np.array([max(row["curve"]) for row in rows])
    noise = seed_spread(rows, read_json(spread))
    predict = process(x, y, noise)
    left_out = np.array([process(np.delete(x, i, 0), np.delete(y, i), noise)(x[[i]])[0] for i in range(len(y))])
    wider = x + [{"log params": 1.0, "log macs": 1.0}.get(name, 0.5 * name.endswith("log width")) for name in names]
    about = {
        "trainings": len(y),
        "accuracy": {"mean": y.mean(), "sd": y.std(ddof=1), "lowest": y.min(), "highest": y.max()},
        "seed_sd": noise,
        "leave_one_out": {
            "r2": 1 - ((y - left_out) ** 2).sum() / ((y - y.mean()) ** 2).sum(),
            "spearman": spearmanr(y, left_out).statistic,
            "rmse": math.sqrt(((y - left_out) ** 2).mean()),
        },
        "gain_of_twice_the_params": (predict(wider) - predict(x)).mean(),  # all widths times the root of 2
        "spearman_of_features": {name: spearmanr(x[:, i], y).statistic for i, name in enumerate(names)},
    }
    return Model(predict, noise, {key: rounded(value) for key, value in about.items()})


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return value if isinstance(value, int) else round(float(value), 4)


def features(architecture: Architecture) -> dict[str, float]:
    """Features of a network alone, independent of how it was proposed."""
    cost, rates = compute_cost(architecture), [layer.rate for layer in architecture.layers if isinstance(layer, Dropout)]
    blocks = [row for row in resolve(architecture) if isinstance(row.layer, SeparableConv)][:-1]  # the last is the head
    widths = [math.log2(row.output[-1]) for row in blocks]
    return {
        "log params": math.log2(cost.params),
        "log macs": math.log2(cost.macs),
        "depth": len(blocks),
        "mean log resolution": statistics.mean(math.log2(row.input[0]) for row in blocks),
        "last log resolution": math.log2(blocks[-1].input[0]),
        "least log width": min(widths),
        "mean log width": statistics.mean(widths),
        "first log width": widths[0],
        "last log width": widths[-1],
        "kernel": blocks[0].layer.kernel,
        "mean dropout": sum(rates) / len(blocks),
        "activation before batch norm": float(isinstance(architecture.layers[1], Activation)),
    }


@dataclass(frozen=True)
class Process:
    """The mean of a Gaussian process with a linear and a smooth part."""

    regressor: Any
    middle: Any
    spread: Any

    def __call__(self, rows: Any) -> Any:
        return self.regressor.predict((np.asarray(rows) - self.middle) / self.spread)


def process(x: Any, y: Any, noise: float) -> Process:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

    middle, spread = x.mean(axis=0), x.std(axis=0)
    kernel = ConstantKernel(0.1) * DotProduct(1.0) + ConstantKernel(0.5) * RBF(4.0, (1.0, 30.0))
    known = (noise / y.std()) ** 2  # left to the fit, it comes out at a tenth of what the seeds show
    regressor = GaussianProcessRegressor(kernel, alpha=known, normalize_y=True, n_restarts_optimizer=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a part that the data do not ask for goes to its bound
        regressor.fit((x - middle) / spread, y)
    return Process(regressor, middle, spread)


def train_seeds(path: Path, data: Path | None) -> None:
    """Train a few of the networks on more seeds; what is finished is not trained again."""
    from search.training.device import prepare_device

    prepare_device()
    found: list[dict[str, Any]] = read_json(path) if path.exists() else []
    images, networks = rungs.small_images(data), rungs.candidates(max(SEED_NETS) + 1)
    for seed in SEEDS:
        for net in SEED_NETS:
            if not any((row["net"], row["seed"]) == (net, seed) for row in found):
                found.append({"net": net, "seed": seed} | rungs.curve(networks[net], seed, images, rungs.RUNGS[0], ()))
                write_json(path, found)
                print(found[-1], flush=True)


def seed_spread(trainings: Sequence[Values], more: Sequence[Values]) -> float:
    """The standard deviation between seeds within a network, pooled over those that were trained on several."""
    nets = sorted({row["net"] for row in more})
    scores = [[max(row["curve"]) for row in (trainings[net], *(one for one in more if one["net"] == net))] for net in nets]
    squares = sum((len(one) - 1) * statistics.variance(one) for one in scores)
    return math.sqrt(squares / sum(len(one) - 1 for one in scores))


# --- one study -------------------------------------------------------------------------------------------------------


def configured(contender: Contender, budget: int) -> StudyConfig:
    searched = {"sampler": contender.sampler, "fit": contender.fit or "reject"}
    recipe = rungs.RECIPE | {"epochs": rungs.RUNGS[0]}
    raw = {"base": 0.1, "data": {"name": "cifar10"}, "budget": {"params": budget}, "space": SPACE, "recipe": recipe}
    return study_file.parse(raw | {"search": searched}, "benchmarks/search_methods.py")


class Study:
    """A study of a contender, trial by trial."""

    def __init__(
        self, contender: Contender, budget: int, seed: int, model: Model, study: optuna.Study, claims: Claims
    ) -> None:
        self.contender, self.config, self.seed, self.model = contender, configured(contender, budget), seed, model
        self.study, self.claims = study, claims
        if not contender.fit:
            own = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
            study.sampler = own[contender.sampler](seed=seed)
        self.times = Counter[str]()  # that a network was trained, by its key
        self.tally = Counter(stored=0, drawn=0, over_budget=0, trained=0, trained_again=0)
        self.scores, self.truths, self.params = list[float](), list[float](), list[int]()

    def propose(self, index: int) -> tuple[optuna.Trial, dict[str, Any]]:
        """The next trial with its values, as `search.runner.trial.run_candidate` asks for it, or as Optuna alone does."""
        if self.contender.fit:
            seed = derive(self.seed, "sampler", index)
            inner = inner_sampler(self.config.search.sampler, seed)
            self.study.sampler = BudgetedSampler(inner, self.config, FACTS, self.claims, seed=seed)
        trial = self.study.ask()
        trial.set_user_attr("index", index)
        return trial, {name: domain.suggest(trial, name) for name, domain in self.config.parameters.items()}

    def judge(self, trial: optuna.Trial, values: Values) -> None:
        """The objective: what fits is scored, what does not is pruned, and its constraint told in both cases."""
        found = judge(self.config, FACTS, values)
        self.tally.update(stored=1, drawn=1 + sum(trial.user_attrs.get(REFUSED, {}).values()))
        trial.set_constraint("params", float(found.cost.params - (self.config.budget.params - 1)) if found.cost else 1.0)
        if isinstance(found, Candidate):
            self.tally.update(trained=1, trained_again=found.key in self.times)
            trial.set_user_attr("key", found.key)
            self.study.tell(trial, self.train(found))
        else:
            self.tally.update(over_budget=1)
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)

    def train(self, found: Candidate) -> float:
        """The score, with luck that hangs on the seed and the network alone, and on how often it was trained."""
        luck = generator(self.seed, "training", found.key, self.times[found.key]).standard_normal()
        self.times[found.key] += 1
        self.truths.append(self.model.true(found.architecture))
        self.scores.append(self.truths[-1] + self.model.noise * float(luck))
        self.params.append(found.cost.params)
        return self.scores[-1]


def in_memory(contender: Contender, budget: int, seed: int, model: Model) -> Study:
    study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
    return Study(contender, budget, seed, model, study, Claims(create_engine("sqlite://"), study._study_id))


def searched(contender: Contender, budget: int, seed: int, trained: int, model: Model) -> dict[str, Any]:
    """A whole study: the true accuracy of the best score after each trained trial, and what became of the proposals."""
    study = in_memory(contender, budget, seed, model)
    while study.tally["trained"] < trained and study.tally["stored"] < MOST_STORED:
        study.judge(*study.propose(study.tally["stored"]))
    leaders = [int(np.argmax(study.scores[: count + 1])) for count in range(len(study.scores))]
    best = [study.truths[place] for place in leaders]
    return {"best": best, "params": study.params, "best_params": study.params[leaders[-1]], **study.tally}


# --- many studies ----------------------------------------------------------------------------------------------------

Runs = dict[tuple[int, str], list[dict[str, Any]]]  # budget and contender to its studies, by seed


def studies(model: Model, seeds: int, trained: int) -> Runs:
    """The studies of every contender at every budget, on all cores."""
    found: Runs = {(budget, one.name): [{}] * seeds for budget in BUDGETS for one in CONTENDERS}
    started, total = time.monotonic(), seeds * len(found)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        asked = {
            pool.submit(searched, one, budget, seed, trained, model): (budget, one.name, seed)
            for seed in range(seeds)
            for budget in BUDGETS
            for one in CONTENDERS
        }
        for count, future in enumerate(as_completed(asked), 1):
            budget, name, seed = asked[future]
            found[budget, name][seed] = future.result()
            if count % max(1, total // 20) == 0:
                print(f"{count} of {total} studies, {time.monotonic() - started:.0f} s", flush=True)
    return found


def cells(runs: Runs, trained: int) -> list[dict[str, Any]]:
    """Results of every method at every budget: means over seeds with 95 % intervals, shares over all its studies."""
    found = []
    for budget in BUDGETS:
        last = {one.name: [run["best"][-1] for run in runs[budget, one.name]] for one in CONTENDERS}
        against = {one.name: one for one in compare(last, PLAIN)}  # paired by seed, one Holm family a budget
        for contender in CONTENDERS:
            own = runs[budget, contender.name]
            total = {
                key: sum(run[key] for run in own) for key in ("stored", "drawn", "over_budget", "trained", "trained_again")
            }
            bests = [run["best"] + [run["best"][-1]] * (trained - len(run["best"])) for run in own]
            difference = against.get(contender.name)
            found.append(
                {
                    "budget": budget,
                    "contender": contender.name,
                    "curve": [summary(scores) for scores in zip(*bests, strict=True)],
                    "against_plain": asdict(difference) if difference else None,
                    "stored_over_budget": total["over_budget"] / total["stored"],
                    "trained_again": total["trained_again"] / total["trained"],
                    "drawn_for_a_trained": total["drawn"] / total["trained"],
                    "mean_params": statistics.mean(size for run in own for size in run["params"]),
                    "mean_params_of_the_best": statistics.mean(run["best_params"] for run in own),
                    "short_of_trained": sum(len(run["params"]) < trained for run in own),
                }
            )
    return found


def summary(values: Sequence[float]) -> tuple[float, ...]:
    """Mean, and the 95 % interval of the mean."""
    (one,) = rank({"": values}).summaries
    return tuple(round(one.mean if value is None else value, 5) for value in (one.mean, one.low, one.high))


# --- milliseconds ----------------------------------------------------------------------------------------------------


def timed(contender: Contender, stored: int, model: Model) -> dict[str, Any]:
    """Milliseconds of a proposal in a study with so many stored trials, in this project's storage on disk.

    A proposal is one that is stored, with its parameters; those that are refused before it count towards it. The trials
    before it are random draws of the same contender.
    """
    before = in_memory(replace(contender, sampler="random"), TIMED_BUDGET, stored, model)
    for index in range(stored):
        before.judge(*before.propose(index))
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(sqlite_url(Path(folder)))
        own = optuna.create_study(storage=storage, direction="maximize")
        own.add_trials(before.study.trials)
        study, wall, cpu = Study(contender, TIMED_BUDGET, stored, model, own, claims_of(own)), [], []
        for index, trial in enumerate(before.study.trials):
            study.claims.claim(trial.user_attrs.get("key", str(index)), index)
        for index in range(stored, stored + TIMED):
            since, used = time.perf_counter(), time.process_time()
            proposal = study.propose(index)
            wall.append(1000 * (time.perf_counter() - since))
            cpu.append(1000 * (time.process_time() - used))
            study.judge(*proposal)
        storage.engine.dispose()
    spread = {
        "wall": statistics.median(wall),
        "cpu": statistics.median(cpu),
        "cpu_lowest": min(cpu),
        "cpu_highest": max(cpu),
    }
    drawn = study.tally["drawn"] / study.tally["stored"]
    found = {"contender": contender.name, "stored": stored, "n": TIMED, "drawn_for_a_stored": drawn} | spread
    print(f"{contender.name} at {stored} trials: {spread['cpu']:.0f} ms of CPU a proposal", flush=True)
    return found


def machine() -> dict[str, Any]:
    packages = {name: version(name) for name in ("optuna", "scikit-learn", "numpy", "sqlalchemy")}
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    } | packages


# --- what is told ----------------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """Everything in lines of text."""
    marks = [mark for mark in MARKS if mark <= found["trained"]]
    lines = [
        f"true accuracy (%) of the best score after N trained trials, mean and 95 % interval of {found['seeds']} seeds",
        f"{'budget':>7} {'contender':18}" + "".join(f"{mark:>18}" for mark in marks) + "  minus plain (paired)   "
        "stored over  again  drawn/trained  mean params  of the best",
    ]
    for cell in found["cells"]:
        scores = "".join(
            "{:>6.2f} [{:.2f}, {:.2f}]".format(*(100 * one for one in cell["curve"][mark - 1])) for mark in marks
        )
        other = cell["against_plain"]
        less = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * other[k] for k in ("difference", "low", "high"))) if other else ""
        verdict = ("tie" if other["is_tie"] else "sure") if other else ""
        lines.append(
            f"{cell['budget']:>7,} {cell['contender']:18}{scores}  {less:21} {verdict:4} {cell['stored_over_budget']:>7.1%} "
            f"{cell['trained_again']:>7.1%} {cell['drawn_for_a_trained']:>9.1f} {cell['mean_params']:>15,.0f} "
            f"{cell['mean_params_of_the_best']:>10,.0f}"
            + (f"  {cell['short_of_trained']} studies came short" if cell["short_of_trained"] else "")
        )
    lines += [
        "",
        f"milliseconds of a proposal that is stored, {TIMED_BUDGET:,} parameters: CPU (by the clock), drawn for it",
    ]
    lines += [
        f"{row['contender']:18} {row['stored']:>5} trials: {row['cpu']:>6.0f} ({row['wall']:.0f})"
        f", {row['drawn_for_a_stored']:.1f}"
        for row in found["milliseconds"]
    ]
    return "\n".join(lines)


def page(found: dict[str, Any]) -> str:
    """The curves, a panel a budget on one scale."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = [f"under {budget:,} parameters" for budget in BUDGETS]
    figure = make_subplots(1, len(BUDGETS), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    for cell in found["cells"]:
        one = next(one for one in CONTENDERS if one.name == cell["contender"])
        column, numbers = BUDGETS.index(cell["budget"]) + 1, list(range(1, len(cell["curve"]) + 1))
        mean, low, high = zip(*cell["curve"], strict=True)
        named = {"legendgroup": one.name, "name": one.name, "mode": "lines"}
        band = {"x": [*numbers, *reversed(numbers)], "y": [*high, *reversed(low)], "fill": "toself", "hoverinfo": "skip"}
        figure.add_trace(
            go.Scatter(**named, **band, fillcolor=one.colour, opacity=0.15, line={"width": 0}, showlegend=False), 1, column
        )
        line = {"color": one.colour, "dash": one.dash}
        figure.add_trace(go.Scatter(**named, x=numbers, y=mean, line=line, showlegend=column == 1), 1, column)
    model, left_out = found["model"], found["model"]["leave_one_out"]
    about = (
        f"on a model of {model['trainings']} short trainings, none over 30,000 parameters (each foretold from the others: "
        f"R\u00b2 {left_out['r2']:.2f}, rank correlation {left_out['spearman']:.2f})"
    )
    best = f"Best found, mean of {found['seeds']} seeds with 95 % intervals; the axis does not begin at zero"
    figure.update_xaxes(title="trained trials")
    figure.update_yaxes(title="true accuracy of the best score", tickformat=".1%", col=1)
    figure.update_layout(
        title=f"{best}<br><sup>{about}</sup>",
        legend={"orientation": "h", "y": -0.15},
        template="plotly_white",
    )
    return str(figure.to_html(include_plotlyjs="cdn"))


if __name__ == "__main__":
    main()
