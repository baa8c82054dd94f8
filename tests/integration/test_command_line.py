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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from tests.support.bad_input import BAD_STUDIES, BAD_WORDS, ROOT, SHRINKS_TOO_FAR, Home, _fill, bad_files
from tests.support.commands import Ended, assert_refused, search
from tests.support.snippet import snippet
from tests.support.study_files import STUDY
from tests.support.tiers import tiered

__all__ = ["bad_files"]
SECONDS = 120
BASE = (STUDIES / "quickstart" / "base.json").read_text(encoding="utf-8")
SCORES = {"params", "best_val_accuracy", "best_epoch", "final_val_accuracy"}


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


@pytest.mark.parametrize("fault", BAD_STUDIES)
def test_row_18_a_bad_study_file_is_rejected_and_its_run_left_alone(fault: str, unchanged: Home, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    "fault", tiered(("no such verb", "study typo", "trials text", "images too few for the classes"), quick=("study typo",))
)
def test_a_fault_ends_a_process_as_it_ends_the_command(fault: str, home: Home, bad_files: Path, tmp_path: Path) -> None:
    words = [_fill(BAD_WORDS[fault][0], home, tmp_path / name, bad_files).split() for name in ("one", "other")]
    apart, within = search_apart(*words[0]), search(*words[1])
    assert_refused(apart)
    assert (apart.status, apart.err) == (within.status, within.err)


@pytest.mark.parametrize("fault", BAD_WORDS)
def test_row_18_bad_words_are_rejected_and_the_run_left_alone(
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
def test_row_16_another_study_does_not_continue_in_a_run(part: str, unchanged: Home) -> None:
    (old, new), hint = OTHER_STUDIES[part]
    original = unchanged.study.read_text(encoding="utf-8")
    unchanged.study.write_text(original.replace(old, new), encoding="utf-8")
    try:
        assert_refused(search("run", *unchanged.words), str(unchanged.run), hint, "--out")
    finally:
        unchanged.study.write_text(original, encoding="utf-8")


def test_row_16_a_run_does_not_continue_with_other_data(unchanged: Home, bad_files: Path) -> None:
    """The same shape and classes, other pixels: only the arrays tell, so this is seen after they are read."""
    ended = search("run", *unchanged.words, "--data", bad_files / "noise.npz")
    assert_refused(ended, "was trained on other data", "--out")


@pytest.mark.parametrize("file", ["config.json", "study.db"])
def test_row_18_a_damaged_run_is_rejected(file: str, home: Home, tmp_path: Path) -> None:
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
    "words",
    tiered(
        ("--help", "run --help", "show eip-b", "show eip-b --json", "top {study} --out {out} --pareto arena_bytes"),
        quick=("--help", "show eip-b", "top {study} --out {out} --pareto arena_bytes"),
    ),
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


@pytest.mark.parametrize("line", tiered(("", "{}", "[1]", "garbage"), quick=("garbage",)))
def test_a_worker_started_by_hand_names_the_right_command(line: str) -> None:
    code = f"import io, sys; sys.stdin = io.StringIO({line!r}); sys.argv = ['search', 'worker']\n"
    done = subprocess.run(
        snippet(f"{code}from search.__main__ import main; main()"),
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


def test_closed_output_is_no_error() -> None:
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
