"""Command lines of any kind, made of the verbs and options that there are and of what nobody meant.

Nothing trains: where a worker would be started, a command has done all that is fuzzed here (`tests.support.hostile`). What
would need TensorFlow in this process is given no study that has come so far.

python -m pytest tests/fuzz/test_commands.py --hypothesis-profile=long
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import typer
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import search.study.survey
from search.cli.commands import app
from search.data.dataset import load_dataset
from search.study.config import REFERENCES
from search.study.run import ask, create
from tests.support.hostile import search as run
from tests.support.odd import WORDS, Draw

MANY = settings.default.max_examples // 3  # of the profile
VERBS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS = {name: verb for name, verb in VERBS.items() if not verb.hidden}
STUDY = 'base = 0.5\ndata = { name = "digits" }\nbudget = { params = 2_000 }\nspace = { blocks = [1, 2], pools = 1 }\n'
LOOKS = ("plan", "top", "show", "run", "finals")  # at a study that has run; what loads TensorFlow gets none

studies = ["fresh.toml", "broken.toml", "sub", "nowhere.toml", "cifar10_100k_", "sub/../fresh.toml", "gone/study.toml"]
has_run = ["ran.toml --out ran-run", "ran.toml --out ran-run --storage sqlite:///ran-run/study.db"]
files = ["tiny.npz", "images", "broken.npz", "nowhere.npz", "empty", "net.json", "broken.json", "fresh.toml", "ran-run"]
networks = ["eip-b", "net.json", "broken.json", "nowhere.json", "net.keras", "eip-z"]
numbers = [
    *"1234567",
    *"1234567",
    *"1234567",
    "0",
    "1",
    "2",
    "-1",
    "17",
    "1e3",
    "0x10",
    "1_000",
    "9" * 30,
    "9" * 5_000,
    "nan",
    "inf",
    "",
    " 3",
    "+4",
    "²",
    "٣",
    "--",
    "1.5",
]
urls = [
    "sqlite:///other.db",
    "sqlite://",
    "sqlite:///:memory:",
    "sqlite:///sub",
    "postgresql://a:b@127.0.0.1:1/c",
    "mysql://x",
    "x://",
]
urls += [
    "postgresql://a:p@ss@127.0.0.1/c",
    "postgresql://127.0.0.1:99999/x",
    "sqlite:///{x}.db",
    "://",
    "sqlite:///a?b=c",
    "postgresql://",
]
odd = [word for word in WORDS if "\0" not in word] + [
    "-",
    "--",
    "---",
    "--help",
    "-h",
    "\udcff\udcfe",
    "sub/\udc80.json",
    "\udc80.toml",
]
odd += [
    "[/].toml",
    "[/red]",
    "a b.npz",
    "~",
    "$HOME",
    "%s",
    "{x}",
    ".",
    "..",
    "../../x",
    "./fresh.toml",
    "/dev/null",
    "/dev/null/x",
]
forms = ["py", "add", "json", "keras", "tflite", "int8", "c", "onnx", "submission", "x"]


@st.composite
def commands(draw: Draw) -> list[str]:
    """A verb with some of its arguments and options, in some order."""
    verb = draw(st.sampled_from(sorted(COMMANDS)))
    words: list[list[str]] = []
    for parameter in COMMANDS[verb].params:
        is_option = parameter.param_type_name == "option"
        if parameter.name == "ray_address":  # there may be a cluster
            continue
        if draw(st.integers(0, 9)) >= (9 if parameter.required else 2):
            continue
        name = [draw(st.sampled_from(parameter.opts))] if is_option else []
        if getattr(parameter, "is_flag", False):
            words.append(name)
        else:
            words.append([*name, *draw(_value(verb, parameter.name))])
    words += [[word] for word in draw(st.lists(_garbage, max_size=2 if draw(st.integers(0, 3)) == 0 else 0))]
    return [verb, *(word for part in draw(st.permutations(words)) for word in part)]


_garbage = st.sampled_from(odd) | st.text(max_size=12).filter(lambda text: "\0" not in text)


def _value(verb: str, name: str) -> st.SearchStrategy[list[str]]:
    """Values of an argument or option, mostly of its kind."""
    kinds: dict[str, list[str]] = {
        "study": studies + (has_run * 3 if verb in LOOKS else []),
        "network": networks * 2 + studies + (has_run * 3 if verb in LOOKS else []),
        "model": files + networks,
        "data": files,
        "storage": urls,
        "out": ["new-run", "fresh.toml", "ran-run", "sub", "empty"],
        "to": ["new", "new.json", "fresh.toml", "sub", "net.json"],
        "svg": ["new.svg", "new.png", "sub", "fresh.toml", "sub/new.svg"],
        "html": ["new.html", "new", "sub"],
        "form": forms,
        "reference": networks,
        "control": ["random", "x"],
        "name": ["new", "../outside", "sub", "references", "a b", "ü"],
    }
    usual = st.sampled_from(kinds.get(name, numbers)).map(str.split if name in ("study", "network") else lambda one: [one])
    return st.integers(0, 9).flatmap(lambda dice: usual if dice else _garbage.map(lambda one: [one]))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with studies, networks and data of all sorts, one of the studies begun and without a trained candidate."""
    home = tmp_path_factory.mktemp("commands") / "deep" / "er"
    for folder in ("sub", "empty", *(f"images/{one}" for one in "ab")):
        (home / folder).mkdir(parents=True)
    for name, text in {"fresh": STUDY, "ran": STUDY, "broken": STUDY + "x = 1\n", "sub/study": STUDY}.items():
        (home / f"{name}.toml").write_text(text, encoding="utf-8")
    (home / "net.json").write_bytes((REFERENCES / "eip-b.json").read_bytes())
    for name in ("broken.json", "broken.npz", "net.keras", "images/a/a.png"):
        (home / name).write_bytes(b'{"a": 1')
    x, y = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), np.uint8), np.arange(60) % 3
    np.savez(home / "tiny.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    begun = ask(str(home / "ran.toml"), {}, home / "ran-run", None)
    candidates = create(begun, load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)).candidates
    candidates.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.PRUNED, user_attrs={"outcome": "rejected"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search.study.survey, "DRAWS", 20)
        patch.setattr(search.study.survey, "survey_space", partial(search.study.survey.survey_space, draws=20))
        yield home


def commanded(words: list[str], home: Path) -> None:
    """Run the command in a copy of the folder."""
    assume(not {"--probe", "--prob"} & set(words))  # which trains
    assume(not any(word.startswith("/") and not word.startswith("/dev/null") and len(word) > 1 for word in words))
    places = (given for option, given in pairwise(words) if option.startswith(("--ou", "--to", "--svg", "--html")))
    assume(not any(".." in place for place in places))  # where a person says that files shall go, they go
    copy = home.with_name("copy")
    shutil.copytree(home, copy)
    try:
        run(*words, within=copy)
    finally:
        shutil.rmtree(copy)


@settings(max_examples=2 * MANY)
@given(words=commands())
@example(words=["show", "x" * 5_000 + ".toml"])
@example(words=["top", "x" * 300])
@example(words=["export", "eip-b", "--to", "\udcff\udcfe"])
@example(words=["show", "eip-b", "--svg", "\udcff.svg"])
@example(words=["show", "\x1b[31m.json"])
@example(words=["run", "fresh.toml", "--out", "[/]"])
def test_a_command_ends_with_0_or_with_2_and_one_line(words: list[str], home: Path) -> None:
    commanded(words, home)


@settings(max_examples=MANY // 2)
@given(words=st.lists(st.sampled_from([*sorted(COMMANDS), *studies, *networks, *files]) | _garbage, max_size=5))
@example(words=[])
def test_any_words_at_all_likewise(words: list[str], home: Path) -> None:
    commanded(words, home)
