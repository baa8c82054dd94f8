"""User errors: status 2, one line on stderr that names the fault, and nothing lost.

The commands run in this process, as starting Python for each of a hundred takes minutes; one of each kind of end does it in
a process of its own. What a worker refuses is refused by a real one either way.

python -m pytest tests/integration/test_command_line.py
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from optuna.trial import TrialState

from search.budget.cost import compute_cost
from search.data.dataset import load_dataset
from search.networks.architecture import to_dict
from search.study.config import STUDIES
from search.study.run import ask, create, network_of
from search.study.study_file import parse
from space import build, parameters
from tests.fault_table import Results, record, rows_of
from tests.support.commands import Ended, assert_refused, search
from tests.support.study_files import STUDY

ROOT = Path(__file__).parents[2]
SECONDS = 120

BASE = (STUDIES / "quickstart" / "base.json").read_text(encoding="utf-8")
SHRINKS_TOO_FAR = """{"input": [8, 8, 1], "classes": 10, "layers": [
  {"kind": "max_pool", "size": 9}, {"kind": "flatten"}, {"kind": "dense", "units": 10}, {"kind": "softmax"}]}"""
SCORES = {"params", "best_val_accuracy", "best_epoch", "final_val_accuracy"}


class Home(NamedTuple):
    """A folder with a study that has run: trial 0 trained, trial 1 rejected, its base and another reference trained."""

    folder: Path
    study: Path
    run: Path

    @property
    def words(self) -> list[str]:
        return [str(self.study), "--out", str(self.run)]


def search_apart(*words: str | Path) -> Ended:
    """`python -m search WORDS` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "search", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def rows(run: Path) -> list[str]:
    """Everything that a run's database holds."""
    with sqlite3.connect(f"file:{run / 'study.db'}?mode=ro", uri=True) as connection:
        found = list(connection.iterdump())
    connection.close()
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    found = Home(folder, folder / "tiny.toml", folder / "run")
    found.study.write_text(STUDY, encoding="utf-8")
    (folder / "base.json").write_text(BASE, encoding="utf-8")
    run = ask(str(found.study), {}, found.run, None)
    studies = create(run, load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None))
    values = {"blocks": 1, "width_1": 8, "width_2": 8, "width_3": 8, "pool_position_1": 1}
    scores = {"params": 300, "macs": 9, "best_val_accuracy": 0.5, "best_epoch": 1, "final_val_accuracy": 0.4, "seed": 1}
    for name in ("base", "other"):
        studies.references.enqueue_trial({}, user_attrs={"reference": name, "index": 0, "outcome": "trained"} | scores)
        studies.references.tell(studies.references.ask(), 0.5)
    for index, outcome in enumerate(("trained", "rejected")):
        studies.candidates.enqueue_trial(values, user_attrs={"index": index, "attempt": 1, "outcome": outcome} | scores)
        trial = studies.candidates.ask()
        for key, domain in parameters(run.config.space).items():
            domain.suggest(trial, key)
        studies.candidates.tell(*((trial, 0.5) if outcome == "trained" else (trial, None, TrialState.PRUNED)))
    return found


@pytest.fixture
def unchanged(home: Home, request: pytest.FixtureRequest) -> Any:
    """Holds the database and the configuration of the run against what they were, and counts what the database lost."""
    before, config = Counter(rows(home.run)), (home.run / "config.json").read_bytes()
    yield home
    after = Counter(rows(home.run))
    record(dict.fromkeys(rows_of(request.function.__name__), 1), Results((before - after).total(), (after - before).total()))
    assert (home.run / "config.json").read_bytes() == config


# --- study files -----------------------------------------------------------------------------------------------------


def _edit(old: str, new: str) -> Callable[[], bytes]:
    assert old in STUDY
    return lambda: STUDY.replace(old, new).encode()


def _extra(table: str, line: str) -> Callable[[], bytes]:
    return _edit(f"[{table}]\n", f"[{table}]\n{line}\n")


BAD_STUDIES: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    # what is no study file at all
    "broken TOML": (_edit('base = "base.json"', "base = "), ("no valid TOML", "line 3")),
    "binary": (lambda: bytes(range(256)), ("no valid TOML",)),
    "number of 5,000 digits": (_edit("2_000", "9" * 5000), ("no valid TOML",)),
    "empty": (lambda: b"", ("base", "required")),
    # unknown keys, at each level, with the nearest
    "unknown key of the file": (_edit("protocol", "protocl"), ("protocl: unknown key", "did you mean 'protocol'?")),
    "unknown key of space": (_edit("width", "widht"), ("space.widht: unknown key", "did you mean 'width'?")),
    "unknown key of augment": (_extra("recipe", "augment = { flipp = true }"), ("flipp: unknown key", "mean 'flip'?")),
    "unknown key of a schedule": (
        _extra("recipe", 'schedule = { kind = "one-cycle", warmupp = 0.2 }'),
        ("warmupp: unknown key", "did you mean 'warmup'?"),
    ),
    "unknown key of a range": (_edit("high = 3", "hihg = 3"), ("space.blocks", "'hihg'", "high")),
    # wrong types
    "text for a whole number": (_edit("epochs = 2", 'epochs = "two"'), ("recipe.epochs", "'two'")),
    "value for a table": (_edit("[data]\nname =", "data ="), ("data",)),
    # budget
    "budget of 0": (_edit("2_000", "0"), ("budget.params", "not 0")),
    "negative budget": (_edit("2_000", "-5"), ("budget.params", "-5")),
    "impossible budget": (_edit("2_000", "50"), ("budget.params: 50 is out of reach", "the smallest network", "at least")),
    # protocol and base
    "protocol typo": (_edit('"holdout"', '"holdot"'), ("protocol", "'course' or 'holdout'", "'holdot'")),
    "base missing": (_edit('base = "base.json"', ""), ("base", "required")),
    "base typo": (_edit("base.json", "eip_b"), ("'eip_b'", "did you mean 'eip-b'?")),
    "base file missing": (_edit("base.json", "none.json"), ("none.json", "No such file")),
    "base file that cannot exist": (_edit("base.json", "shrinks.json"), ("shrinks", "9x9", "8x8")),
    "base accuracy of 1.5": (_edit('"base.json"', "1.5"), ("base", "between 0 and 1", "1.5")),
    "base for other images": (_edit("base.json", "base"), ("base", "32x32x3", "8x8x1")),
    # space
    "more pools than blocks": (_edit("pools = 1", "pools = 2"), ("pools: 2 pools need as many blocks", "goes down to 1")),
    "dropout without an order": (_extra("space", "dropout = 0.1"), ("dropout: has no effect", "conv-dropout-bn-act")),
    "steps that miss the top": (_edit("high = 48, step = 8", "high = 50, step = 8"), ("space.width", "do not reach 50")),
    "empty list": (_edit("pools = 1", "kernel = []"), ("space.kernel", "empty list")),
    "nothing fits the images": (_extra("space", 'kernel = 9\npadding = "valid"'), ("8x8x1", "padding same")),
    # recipe
    "learning rate of 0": (_extra("recipe", "learning_rate = 0.0"), ("recipe.learning_rate", "above 0")),
    "unknown optimizer": (_extra("recipe", 'optimizer = "adan"'), ("recipe.optimizer", "adam", "'adan'")),
    "unknown schedule": (_extra("recipe", 'schedule = { kind = "cosin" }'), ("recipe.schedule", "'cosine'")),
    # data and search
    "no data": (_edit('[data]\nname = "digits"', ""), ("data", "required")),
    "data typo": (_edit('"digits"', '"digit"'), ("data.name", "'digits'", "'digit'")),
    "sampler typo": (_extra("search", 'sampler = "tpe2"'), ("search.sampler", "'tpe'", "'tpe2'")),
    # networks known before
    "warm start typo": (_extra("search", 'warm_start = ["eip_c"]'), ("'eip_c'", "did you mean 'eip-c'?")),
    "warm start missing": (_extra("search", 'warm_start = ["none.json"]'), ("none.json", "No such file")),
    "warm start over the budget": (
        _extra("search", 'warm_start = ["large.json", "base.json"]'),
        ("search.warm_start: large: ", " parameters, the budget is under 2,000", "raise the budget"),
    ),
    "warm start of another space": (
        _extra("search", 'warm_start = ["base.json"]'),
        ("search.warm_start: base is no network of this space (", "widen the space, or leave it out of search.warm_start"),
    ),
    # rungs and limits
    "rungs where the rate stays": (
        _extra("search", "rungs = { first = 1 }"),
        ("search.rungs: the constant schedule does not decay to zero", "take cosine, linear or one-cycle"),
    ),
    "unknown key of rungs": (_extra("search", "rungs = { fist = 1 }"), ("search.rungs.fist", "did you mean 'first'?")),
    "unknown key of stop": (_edit("[search]", "[stop]\nhour = 3\n[search]"), ("stop.hour", "did you mean 'hours'?")),
}


@pytest.mark.parametrize("fault", BAD_STUDIES)
def test_row_18_a_bad_study_file_is_refused_and_its_run_left_alone(fault: str, unchanged: Home, tmp_path: Path) -> None:
    content, hints = BAD_STUDIES[fault]
    (tmp_path / "tiny.toml").write_bytes(content())
    (tmp_path / "base.json").write_text(BASE, encoding="utf-8")
    (tmp_path / "shrinks.json").write_text(SHRINKS_TOO_FAR, encoding="utf-8")
    (tmp_path / "large.json").write_text(_large(), encoding="utf-8")
    folder = tmp_path / "run" if _needs_worker(fault) else unchanged.run
    assert_refused(search("run", tmp_path / "tiny.toml", "--out", folder), *hints)
    assert not (tmp_path / "run").exists()


def _large() -> str:
    """The largest network of the study's space, which does not fit its budget."""
    of = parse(tomllib.loads(STUDY) | {"base": 0.5}, "study").space
    values = {"blocks": 3, "width_1": 48, "width_2": 48, "width_3": 48, "pool_position_1": 1}
    return json.dumps(to_dict(build(of, values, (8, 8, 1), 10)))


def _needs_worker(fault: str) -> bool:
    """True if a new run shows the fault only in its worker; an existing run is refused earlier."""
    return fault in {
        "impossible budget",
        "base typo",
        "base file missing",
        "base file that cannot exist",
        "base for other images",
        "nothing fits the images",
        "warm start typo",
        "warm start missing",
        "warm start over the budget",
        "warm start of another space",
    }


# --- what is beside the study file: names, options, data -------------------------------------------------------------

BAD_WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    # {study}, {out}: the study that has run; {new}: an empty folder; {folder}: the folder with bad files
    "no such verb": ("rnu {study}", ("rnu",)),
    "no study": ("run", ("Missing argument 'study'",)),
    "path traversal": ("run ../../x", ("'../../x'", "no study of this name")),
    "study typo": ("run quickstrat", ("did you mean 'quickstart'?",)),
    "study file missing": ("run {folder}/none.toml", ("no such study file",)),
    "top before run": ("top {study} --out {new}", ("nothing has run", "python -m search run {study} --out {new}")),
    "reference typo": ("show eip_b", ("'eip_b'", "eip-b")),
    "no such network file": ("show {folder}/none.json", ("none.json", "No such file")),
    "network file no JSON": ("show {folder}/text.json", ("text.json",)),
    "network file nested deep": ("show {folder}/deep.json", ("deep.json",)),
    "network that cannot exist": ("show {folder}/shrinks.json", ("shrinks.json", "9")),
    "network number": ("show eip-b 3", ("eip-b 3", "a trial number goes with a study")),
    "no such trial": ("show {study} 99 --out {out}", ("99", "no trial of this number", "there are 2")),
    "number is text": ("show {study} best --out {out}", ("number", "must be a whole number")),
    "export of the rejected": ("export {study} 1 --out {out}", ("1", "was not trained", "rejected")),
    "export of no reference": ("export {study} --reference eip-x --out {out}", ("eip-x",)),
    "export form unknown": ("export eip-b --form onxx --to {new}", ("--form onxx: no such format", "did you mean 'onnx'?")),
    "export of weights of none": (
        "export eip-b --form keras --to {new}",
        ("has not been trained", "--form py, add or json"),
    ),
    "export of integers of none": ("export eip-b --form int8 --to {new}", ("not been trained", "--form py, add or json")),
    "export of two trials": ("export {study} 0 --trial 1 --out {out}", ("--trial 1", "the same thing")),
    "export of a trial and a reference": ("export {study} 0 --reference base --out {out}", ("--reference base", "trial 0")),
    "front of no price": ("top {study} --pareto flash --out {out}", ("--pareto flash", "did you mean 'flash_bytes'?")),
    "front to export of no price": ("export {study} --pareto x --out {out} --to {new}", ("--pareto x", "macs", "params")),
    "front in no form": (
        "export {study} --pareto macs --form onxx --out {out} --to {new}",
        ("--form onxx: no such format, did you mean 'onnx'?",),
    ),
    "front and a trial": ("export {study} 0 --pareto macs --out {out}", ("--pareto", "no trial")),
    "front of a network": ("export eip-b --pareto macs --to {new}", ("--pareto", "pass a study")),
    "export with images of none": ("export eip-b --data {folder}/large.npz --to {new}", ("--data", "not trained")),
    "export over its own file": ("export {folder}/whole.json --to {folder}", ("whole.json", "would replace it", "--to")),
    "export under a file": ("export eip-b --to {folder}/text.json/x", ("text.json",)),
    # overrides
    "trials 0": ("run {study} --out {out} --trials 0", ("--trials", "not 0")),
    "trials negative": ("run {study} --out {out} --trials -1", ("--trials", "-1")),
    "trials text": ("run {study} --out {out} --trials two", ("--trials", "must be a whole number")),
    "trials too large": ("run {study} --out {out} --trials 1000001", ("--trials", "1000001")),
    "epochs 0": ("run {study} --out {out} --epochs 0", ("--epochs", "not 0")),
    "epochs fraction": ("run {study} --out {out} --epochs 1.5", ("--epochs", "must be a whole number")),
    "batch size 0": ("run {study} --out {out} --batch-size 0", ("--batch-size", "not 0")),
    "seed negative": ("run {study} --out {out} --seed -1", ("--seed", "-1")),
    "seed of 30 digits": (f"run {{study}} --out {{out}} --seed {10**30}", ("--seed",)),
    "images 0": ("run {study} --out {out} --images 0", ("--images", "not 0")),
    "images more than there are": ("run {study} --out {new} --images 5000", ("images is 5000", "to 1079")),
    "images too few for the classes": ("run {study} --out {new} --images 5", ("images is 5", "each class")),
    # data
    "data missing": ("run {study} --out {out} --data {folder}/none.npz", ("none.npz", "no such file")),
    "data corrupt": ("run {study} --out {out} --data {folder}/corrupt.npz", ("corrupt.npz", "damaged")),
    "data of floats": ("run {study} --out {out} --data {folder}/floats.npz", ("floats.npz: x_train", "uint8")),
    "data without labels": ("run {study} --out {out} --data {folder}/halves.npz", ("halves.npz", "y_train")),
    "data of another shape": ("run {study} --out {out} --data {folder}/large.npz", ("large.npz", "8x8x1", "9x9x1")),
    "data of another kind": ("run {study} --out {out} --data {folder}/text.json", ("text.json", "not read")),
    # references
    "reference to train unknown": ("run {study} --out {out} --reference eip-bb", ("'eip-bb'", "did you mean 'eip-b'?")),
    "reference for other images": ("run {study} --out {out} --reference eip-b", ("eip-b", "32x32x3", "8x8x1")),
    # storage and folder
    "storage nonsense": ("run {study} --out {new} --storage nonsense", ("--storage nonsense",)),
    "storage in memory": ("run {study} --out {new} --storage sqlite://", ("--storage", "memory")),
    "storage that cannot be made": ("top {study} --out {out} --storage sqlite:////proc/none/x.db", ("/proc/none",)),
    "storage that is no database": ("top {study} --out {out} --storage sqlite:///{folder}/text.json", ("text.json",)),
    "storage without the study": ("top {study} --out {out} --storage sqlite:///{folder}/e.db", ("there is no such file",)),
    "storage elsewhere on resume": ("run {study} --out {out} --storage sqlite:///{folder}/f.db", ("{out}", "storage")),
    "out is a file": ("run {study} --out {folder}/text.json", ("--out", "text.json")),
    "out under a file": ("run {study} --out {folder}/text.json/run", ("text.json",)),
    "out unwritable": ("run {study} --out /proc/none/run", ("/proc/none",)),
    # another study under the run's name
    "resume with other epochs": ("run {study} --out {out} --epochs 3", ("recipe.epochs is 2 here, not 3", "--out")),
    "resume with fewer images": ("run {study} --out {out} --images 500", ("data.images is null here, not 500",)),
    "resume with another seed": ("run {study} --out {out} --seed 5", ("search.seed is 0 here, not 5",)),
    "resume with another batch": ("run {study} --out {out} --batch-size 32", ("recipe.batch_size is 64 here, not 32",)),
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "folder.toml").mkdir()
    (folder / "text.json").write_text("not JSON", encoding="utf-8")
    (folder / "binary.json").write_bytes(bytes(range(256)))
    (folder / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    (folder / "shrinks.json").write_text(SHRINKS_TOO_FAR, encoding="utf-8")
    network = json.loads((ROOT / "studies" / "references" / "eip-b.json").read_text(encoding="utf-8"))
    (folder / "whole.json").write_text(json.dumps(network | {"name": "whole"}), encoding="utf-8")
    (folder / "corrupt.npz").write_bytes(b"PK\x03\x04" + bytes(200))
    images, labels = np.random.default_rng(0).integers(0, 256, (1100, 8, 8), np.uint8), np.arange(1100) % 10
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(folder / "floats.npz", **arrays | {"x_train": images / 255})
    np.savez(folder / "halves.npz", **{name: array for name, array in arrays.items() if name != "y_train"})
    np.savez(
        folder / "large.npz", **arrays | {name: np.pad(images, ((0, 0), (0, 1), (0, 1))) for name in ("x_train", "x_test")}
    )
    np.savez(folder / "noise.npz", **arrays)
    return folder


def _fill(template: str, home: Home, new: Path, folder: Path) -> str:
    return template.format(study=home.study, out=home.run, new=new, folder=folder)


@pytest.mark.parametrize("fault", ["no such verb", "study typo", "trials text", "images too few for the classes"])
def test_a_fault_ends_a_process_as_it_ends_the_command(fault: str, home: Home, bad_files: Path, tmp_path: Path) -> None:
    words = [_fill(BAD_WORDS[fault][0], home, tmp_path / name, bad_files).split() for name in ("one", "other")]
    apart, within = search_apart(*words[0]), search(*words[1])
    assert_refused(apart)
    assert (apart.status, apart.err) == (within.status, within.err)


@pytest.mark.parametrize("fault", BAD_WORDS)
def test_row_18_bad_words_are_refused_and_the_run_left_alone(
    fault: str, unchanged: Home, bad_files: Path, tmp_path: Path
) -> None:
    words, hints = BAD_WORDS[fault]
    new = tmp_path / "new"
    ended = search(*_fill(words, unchanged, new, bad_files).split())
    assert_refused(ended, *(_fill(hint, unchanged, new, bad_files) for hint in hints))
    assert not new.exists()


OTHER_STUDIES = {
    "space": (("high = 48", "high = 40"), "space.width.high is 48 here, not 40"),
    "budget": (("2_000", "1_999"), "budget.params is 2000 here, not 1999"),
    "recipe": (("batch_size = 64", "batch_size = 64\nnormalize = true"), "recipe.normalize is null here, not true"),
    "protocol": (('"holdout"', '"course"'), 'protocol is "holdout" here, not "course"'),
    "base": (('"base.json"', "0.9"), "base is "),
    "holdout": (('"digits"', '"digits"\nholdout = 0.2'), "data.holdout is 0.1 here, not 0.2"),
    "minutes": (("[search]", "[stop]\ntrial_minutes = 3\n[search]"), "stop.trial_minutes is null here, not 3.0"),
}


@pytest.mark.parametrize("part", OTHER_STUDIES)
def test_row_16_another_study_does_not_go_on_in_a_run(part: str, unchanged: Home) -> None:
    (old, new), hint = OTHER_STUDIES[part]
    original = unchanged.study.read_text(encoding="utf-8")
    unchanged.study.write_text(original.replace(old, new), encoding="utf-8")
    try:
        assert_refused(search("run", *unchanged.words), str(unchanged.run), hint, "--out")
    finally:
        unchanged.study.write_text(original, encoding="utf-8")


@pytest.mark.slow
def test_row_16_a_run_does_not_go_on_with_other_data(unchanged: Home, bad_files: Path) -> None:
    """The same shape and classes, other pixels: only the arrays tell, so this is seen after they are read."""
    ended = search("run", *unchanged.words, "--data", bad_files / "noise.npz")
    assert_refused(ended, "was trained on other data", "--out")


@pytest.mark.parametrize("file", ["config.json", "study.db"])
def test_row_18_a_damaged_run_is_refused(file: str, home: Home, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(home.run, copy)
    for extra in ("study.db-wal", "study.db-shm"):
        (copy / extra).unlink(missing_ok=True)
    (copy / file).write_bytes(b"damaged " * 100)
    for verb in ("top", "run"):
        assert_refused(search(verb, home.study, "--out", copy), str(copy))
    assert (copy / file).read_bytes() == b"damaged " * 100
    kept = "study.db" if file == "config.json" else "config.json"
    is_lost = (copy / kept).read_bytes() != (home.run / kept).read_bytes()
    record({18: 2}, Results(int(is_lost), 0))


@pytest.mark.parametrize(
    "url",
    [
        "nosql://anna:hunter2@h/d",
        "postgresql://anna:{hunter2}@/d",
        "postgresql://anna@host:hunter2@localhost:1/none",
        "postgresql://localhost:1/none?user=anna&password=hunter2",
    ],
)
def test_row_20_a_password_is_never_shown(url: str, home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.run, tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_bytes()
    ended = search("run", home.study, "--out", tmp_path / "run", "--storage", url)
    assert_refused(ended)
    assert "hunter2" not in ended.err + ended.out
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    there, now = Counter(rows(home.run)), Counter(rows(tmp_path / "run"))
    record({20: 1}, Results((there - now).total(), (now - there).total()))


@pytest.mark.parametrize(
    "words", ["--storage {url} ", "--storage={url} ", "--storage {url} --data ", "--data= --storage {url}"]
)
def test_row_20_a_password_is_not_shown_where_an_argument_is_empty(words: str, unchanged: Home) -> None:
    said = words.format(url="postgresql://anna:hunter2@localhost:1/none").split(" ")
    ended = search("run", unchanged.study, *said)
    assert_refused(ended, "is empty")
    assert "hunter2" not in ended.err + ended.out


# --- what goes well --------------------------------------------------------------------------------------------------

LOOK = """
import sys
from search.__main__ import main
sys.argv = ["search", *sys.argv[1:]]
try:
    main()
finally:
    heavy = {"tensorflow", "keras", "jax", "torch"} & {name.split(".")[0] for name in sys.modules}
    print(f"heavy: {sorted(heavy)}", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", ["--help", "run --help", "show eip-b", "show eip-b --json", "top {study} --out {out} --pareto arena_bytes"]
)
def test_looking_does_not_load_tensorflow(words: str, home: Home) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *words.format(study=home.study, out=home.run).split()],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "heavy: []\n")
    assert done.stdout.strip()


@pytest.mark.parametrize("line", ["", "{}", "[1]", "garbage"])
def test_a_worker_that_a_person_starts_says_what_starts_workers(line: str) -> None:
    code = f"import io, sys; sys.stdin = io.StringIO({line!r}); sys.argv = ['search', 'worker']\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}from search.__main__ import main; main()"],
        capture_output=True, text=True, timeout=SECONDS, cwd=ROOT, check=False,
    )  # fmt: skip
    assert_refused(Ended(done.returncode, done.stdout, done.stderr), "is no order", "python -m search run STUDY")


def test_no_words_are_help() -> None:
    bare, asked = search_apart(), search("--help")
    assert (bare.status, bare.err) == (0, "")
    assert bare.out == asked.out
    assert {verb for verb in ("run", "top", "show", "report", "export", "dashboard") if verb in asked.out} >= {"run", "top"}


def test_show_json_has_the_promised_keys() -> None:
    ended = search_apart("show", "eip-b", "--json")
    shown = json.loads(ended.out)
    assert (ended.status, ended.err) == (0, "")
    assert shown.keys() == {"name", "params", "trainable_params", "macs", "receptive_field", "output", "int8", "layers"}
    for layer in shown["layers"]:
        assert layer.keys() == {"name", "kind", "output", "receptive_field", "params", "macs"}
    assert (shown["name"], shown["output"]) == ("eip-b", [10])
    assert len(shown["receptive_field"]) == 2


def test_show_takes_a_trial_of_a_study_and_else_the_best(home: Home) -> None:
    shown = {
        number: json.loads(search("show", home.study, *number, "--out", home.run, "--json").out) for number in ((), ("1",))
    }
    assert [shown[number]["name"] for number in ((), ("1",))] == ["tiny-0", "tiny-1"]
    run = ask(str(home.study), {}, home.run, None)
    assert shown[()]["params"] == compute_cost(network_of(run, 0)).params


def test_top_json_has_the_promised_keys(home: Home) -> None:
    ended = search("top", *home.words, "--json")
    board = json.loads(ended.out)
    assert (ended.status, ended.err) == (0, "")
    assert board.keys() == {
        *("study", "budget", "base", "references", "trials", "counts", "refusals", "val_images", "standing")
    }
    assert board["val_images"] == 359 and board["standing"]["standing"] == "level in one training"
    assert board["budget"] == {"params": 2000}
    assert board["base"].keys() == SCORES
    assert [row.keys() - {"name"} for row in board["references"]] == [SCORES]
    assert [row["name"] for row in board["references"]] == ["other"]
    keys = {"rank", "number", "delta_vs_base", "epochs", "seconds", "outcome"} | SCORES
    assert [trial.keys() for trial in board["trials"]] == [keys]
    assert board["counts"] == {"trained": 1, "pruned_at_rung": 0, "rejected": 1, "failed": 0}
    assert board["refusals"] == {}


def test_output_that_nobody_reads_is_no_fault() -> None:
    """As in `python -m search show eip-b | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    command: Sequence[str] = [sys.executable, "-m", "search", "show", "eip-b", "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False, timeout=SECONDS)
    os.close(writer)
    assert done.stderr == ""


def test_the_name_in_an_architecture_file_never_becomes_a_path(tmp_path: Path) -> None:
    network = json.loads((ROOT / "studies" / "references" / "eip-b.json").read_text(encoding="utf-8"))
    (tmp_path / "net.json").write_text(json.dumps(network | {"name": "../../outside"}), encoding="utf-8")
    (tmp_path / "to").mkdir()
    ended = search("export", str(tmp_path / "net.json"), "--to", str(tmp_path / "to"))
    assert ended.status == 0, ended
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["outside.json", "outside.py", "outside_add.py"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.json", "to"]
