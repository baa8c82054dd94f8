"""Reading a study file: faults, options that override its keys, paths and names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.errors import UserError
from search.study import references
from search.study.config import (
    OPTIONS,
    ROOT,
    STUDIES,
    flat,
)
from search.study.study_file import find, load, parse
from tests.support.study_files import SHIPPED, STUDY, one_line, plain_study, write_study


def _edit(old: str, new: str) -> Callable[[], bytes]:
    assert old in STUDY
    return lambda: STUDY.replace(old, new).encode()


def _extra(table: str, line: str) -> Callable[[], bytes]:
    return _edit(f"[{table}]\n", f"[{table}]\n{line}\n")


def _rungs(table: str, line: str = "") -> Callable[[], bytes]:
    text = STUDY.replace("[recipe]\n", '[recipe]\nschedule = { kind = "linear" }\n')
    return lambda: text.replace("[search]\n", f"[search]\nrungs = {{ {table} }}\n{line}\n").encode()


def _stop(line: str) -> Callable[[], bytes]:
    return lambda: f"{STUDY}\n[stop]\n{line}\n".encode()


# Some forty more go through the command line in test_command_line.py.
BAD_STUDIES: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "UTF-16": (lambda: STUDY.encode("utf-16"), ("no valid TOML",)),
    "backslash": (
        _extra("data", 'group = "p\\d+"'),
        ("no valid TOML", r"write a backslash in single quotes, such as 'p\d+'"),
    ),
    "no pattern": (
        lambda: STUDY.replace('name = "digits"', "path = 'a'\ngroup = 'p('").encode(),
        ("data.group: 'p(' is no regular expression", "leave it out"),
    ),
    "group of a named set": (_extra("data", "group = 'p'"), ("group: digits is taken as it is",)),
    "key twice": (_extra("budget", "params = 3"), ("no valid TOML",)),
    "unknown table": (_edit("[budget]", "[bugdet]"), ("budget",)),
    "unknown key of data": (_extra("data", "hold_out = 0.2"), ("data.hold_out: unknown key", "did you mean 'holdout'?")),
    "unknown key of budget": (_extra("budget", "separable = true"), ("did you mean 'separable_only'?",)),
    "unknown key of recipe": (_edit("epochs", "epoch"), ("recipe.epoch: unknown key", "did you mean 'epochs'?")),
    "unknown key of search": (_edit("trials", "trails"), ("search.trails: unknown key", "did you mean 'trials'?")),
    "fraction for a whole number": (_edit("epochs = 2", "epochs = 2.5"), ("recipe.epochs", "2.5")),
    "text for the budget": (_edit("2_000", '"2000"'), ("budget.params", "'2000'")),
    "truth for a number": (_edit("trials = 2", "trials = true"), ("search.trials", "True")),
    "date for a number": (_edit("epochs = 2", "epochs = 2024-01-01"), ("recipe.epochs",)),
    "text for a dimension": (_edit("pools = 1", 'pools = "one"'), ("space.pools", "'one'")),
    "list for a table": (lambda: STUDY.replace("[search]", "[[search]]").encode(), ("search",)),
    "base accuracy of 0": (_edit('"base.json"', "0"), ("base", "between 0 and 1")),
    "base true": (_edit('"base.json"', "true"), ("base", "True")),
    "value twice": (_edit("pools = 1", "kernel = [3, 3]"), ("space.kernel", "twice")),
    "low above high": (_edit("low = 1, high = 3", "low = 3, high = 1"), ("space.blocks", "low must be below high")),
    "kernel of 0": (_edit("pools = 1", "kernel = 0"), ("space.kernel", "not 0")),
    "unknown kind": (_extra("space", 'kind = "piramid"'), ("space.kind", "'pyramid'", "'fixed'", "'piramid'")),
    "no sampler": (_extra("search", 'sampler = "cmaes"'), ("search.sampler", "'tpe'", "'nsga2'", "'grid'", "'cmaes'")),
    "unknown fit": (_extra("search", 'fit = "full"'), ("search.fit", "'reject' or 'fill'", "'full'")),
    "one warm start": (_extra("search", 'warm_start = "eip-c"'), ("search.warm_start", "'eip-c'")),
    "rungs that are a number": (_extra("search", "rungs = 3"), ("search.rungs", "3")),
    "no budget": (
        _edit("[budget]\nparams = 2_000\n", ""),
        ("toml: [budget] is missing and required; add the table, with params",),
    ),
    "no data": (_edit('[data]\nname = "digits"\n', ""), ("toml: [data] is missing and required; add the table",)),
    "rungs from 0": (_rungs("first = 0"), ("search.rungs.first", "not 0")),
    "rungs by 1": (_rungs("first = 1, factor = 1"), ("search.rungs.factor", "not 1")),
    "rungs from nowhere": (_rungs("factor = 2"), ("search.rungs.first", "required")),
    "first rung after the last epoch": (
        _rungs("first = 2"),
        (
            "toml: search.rungs: the first is after 2 epochs, and recipe.epochs is 2",
            "; take at least 3 epochs, a lower first, or leave rungs out",
        ),
    ),
    "rungs where the rate stays": (
        _extra("search", "rungs = { first = 1 }"),
        ("toml: search.rungs: the constant schedule does not decay to zero by a rung", "take cosine, linear or one-cycle"),
    ),
    "rungs where one of the rates stays": (
        lambda: _rungs("first = 1")().replace(
            b'schedule = { kind = "linear" }', b'schedules = [{kind="linear"}, {kind="plateau"}]'
        ),
        ("search.rungs: the plateau schedule does not decay",),
    ),
    "rungs for nsga2": (
        _rungs("first = 1", 'sampler = "nsga2"'),
        ("rungs: the nsga2 sampler learns nothing from a pruned trial", "take bayes, tpe or random, or leave rungs out"),
    ),
    "rungs in a grid": (
        _rungs("first = 1", 'sampler = "grid"'),
        ("rungs: the grid sampler trains all of its cells in full",),
    ),
    "a grid that fills": (
        _extra("search", 'sampler = "grid"\nfit = "fill"'),
        ('fit: "fill" changes the widths that a grid lists; leave it out',),
    ),
    "repeats of no grid": (_extra("search", "repeats = 3"), ('repeats: cells are repeated by sampler = "grid"',)),
    "no repeats": (_extra("search", 'sampler = "grid"\nrepeats = 0'), ("search.repeats", "not 0")),
    "endless grid": (
        lambda: _extra("search", 'sampler = "grid"')().replace(
            b"batch_size = 64", b"learning_rate = { low = 0.1, high = 0.2 }\nmomentum = [0.8, 0.9]"
        ),
        ("toml: recipe.learning_rate: a grid cannot list a range without a step; give it one, or a list",),
    ),
    "no hours": (_stop("hours = 0"), ("stop.hours", "not 0")),
    "no device hours": (_stop("device_hours = -1.0"), ("stop.device_hours", "not -1.0")),
    "accuracy in percent": (_stop("accuracy = 95"), ("stop.accuracy", "not 95")),
    "accuracy of 1": (_stop("accuracy = 1.0"), ("stop.accuracy", "not 1.0")),
    "no patience": (_stop("patience = 0"), ("stop.patience", "not 0")),
    "patience of half a trial": (_stop("patience = 1.5"), ("stop.patience", "1.5")),
    "expected gain of tpe": (
        _stop("expected_gain = 0.001"),
        ("stop.expected_gain: the tpe sampler predicts none", "or stop.patience"),
    ),
    "no expected gain": (_stop("expected_gain = 0"), ("stop.expected_gain", "not 0")),
    "no minutes": (_stop("trial_minutes = 0"), ("stop.trial_minutes", "not 0")),
    "minutes in words": (_stop('trial_minutes = "five"'), ("stop.trial_minutes", "'five'")),
    "schedule and schedules": (
        _extra("recipe", 'schedule = { kind = "cosine" }\nschedules = [{ kind = "linear" }, { kind = "cosine" }]'),
        ("recipe: schedules: schedule is given too; leave one of them out",),
    ),
    "no such network": (
        lambda: STUDY.replace(
            STUDY[STUDY.index("blocks =") : STUDY.index("[recipe]")], 'kind = "fixed"\nnetwork = "eip_c"\n'
        ).encode(),
        ("space.network: 'eip_c' is no reference", "did you mean 'eip-c'?", "or give an architecture file"),
    ),
    "position past the depth": (_extra("space", "pool_position = 4"), ("pool_position", "no block past 3")),
    "infinite learning rate": (_extra("recipe", "learning_rate = inf"), ("recipe.learning_rate", "inf")),
    "learning rate that is no number": (_extra("recipe", "learning_rate = nan"), ("recipe.learning_rate", "nan")),
    "batch of 0": (_edit("batch_size = 64", "batch_size = 0"), ("recipe.batch_size", "not 0")),
    "smoothing of 1": (_extra("recipe", "label_smoothing = 1"), ("recipe.label_smoothing",)),
    "negative crop": (_extra("recipe", "augment = { crop = -1 }"), ("recipe.augment.crop", "-1")),
    "epochs of 0": (_edit("epochs = 2", "epochs = 0"), ("recipe.epochs", "not 0")),
    "data of no name": (_edit('name = "digits"', ""), ("data", "name or path is needed")),
    "size of a set that has its own": (
        _extra("data", "size = 16"),
        ("data: size: digits is taken as it is; leave it out, or give a path without a name",),
    ),
    "size of 0": (_edit('name = "digits"', 'path = "x"\nsize = 0'), ("data.size", "not 0")),
    "size of three sides": (_edit('name = "digits"', 'path = "x"\nsize = [8, 8, 3]'), ("data.size",)),
    "size beyond all use": (_edit('name = "digits"', 'path = "x"\nsize = 1025'), ("data.size", "1024", "not 1025")),
    "background of another colour": (_edit('name = "digits"', 'path = "x"\nbackground = "red"'), ("background", "'red'")),
    "one class": (_edit('name = "digits"', 'path = "x"\nclasses = ["a"]'), ("data: classes: at least two, each once",)),
    "a class twice": (_edit('name = "digits"', 'path = "x"\nclasses = ["a", "b", "a"]'), ("at least two, each once",)),
    "holdout of 1": (_extra("data", "holdout = 1.0"), ("data.holdout", "1.0")),
    "negative seed": (_extra("search", "seed = -1"), ("search.seed", "-1")),
    "number for truth": (_extra("recipe", "augment = { flip = 1 }"), ("recipe.augment.flip", "1")),
    "budget of 400 digits": (_edit("2_000", "9" * 400), ("budget.params",)),
    "number of 5,000 digits": (_edit("2_000", "9" * 5000), ("no valid TOML",)),
    "deep nesting": (lambda: STUDY.encode() + b"\nx = " + b"[" * 20_000, ("no valid TOML",)),
}


@pytest.mark.parametrize("fault", BAD_STUDIES)
def test_a_fault_is_reported_with_its_file_its_key_and_the_rule(fault: str, tmp_path: Path) -> None:
    content, hints = BAD_STUDIES[fault]
    path = write_study(tmp_path, content())
    with pytest.raises(UserError) as caught:
        load(path)
    text = one_line(caught)
    assert text.startswith(f"{path}: ")
    assert [hint for hint in hints if hint not in text] == [], text


MISSPELT = [
    ("protocl", "protocol"),
    ("data.hold_out", "holdout"),
    ("budget.parms", "params"),
    ("space.pool_positions", "pool_position"),
    ("recipe.batchsize", "batch_size"),
    ("recipe.augment.rotate", "rotation"),
    ("recipe.schedule.warm_up", "warmup"),
    ("search.sede", "seed"),
    ("search.warmstart", "warm_start"),
    ("search.rungs.frist", "first"),
    ("search.rungs.factors", "factor"),
    ("stop.hour", "hours"),
    ("stop.acuracy", "accuracy"),
    ("stop.patients", "patience"),
    ("recipe.schedules.1.warm_up", "warmup"),
    ("recipe.augments.1.rotate", "rotation"),
]


@pytest.mark.parametrize(("place", "meant"), MISSPELT)
def test_an_unknown_key_is_reported_with_the_nearest(place: str, meant: str) -> None:
    raw = plain_study()
    raw |= {"stop": {}}
    raw["search"]["rungs"] = {"first": 1}
    if place.startswith(("recipe.schedules", "recipe.augments")):
        raw["recipe"] |= {"augments": [{}, {"flip": True}], "schedules": [{"kind": "cosine"}, {"kind": "one-cycle"}]}
    else:
        raw["recipe"] |= {"augment": {"flip": True}, "schedule": {"kind": "one-cycle"}}
    *tables, key = place.split(".")
    table: Any = raw
    for name in tables:
        table = table[int(name) if name.isdigit() else name]
    table[key] = 1
    with pytest.raises(UserError) as caught:
        parse(raw, "file")
    assert f"{key}: unknown key, did you mean '{meant}'?" in one_line(caught)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UserError, match="cannot be read") as caught:
            load(path)
        assert one_line(caught).startswith(str(path))


GOOD = {
    "data.path": "/srv/x.npz",
    "data.images": 7,
    "recipe.epochs": 9,
    "recipe.batch_size": 5,
    "search.trials": 3,
    "search.seed": 4,
}
BAD = {"data.images": 0, "recipe.epochs": 0, "recipe.batch_size": -3, "search.trials": 0, "search.seed": -1}


def test_overrides_take_the_place_of_the_file(tmp_path: Path) -> None:
    assert GOOD.keys() == OPTIONS.keys()
    path = write_study(tmp_path)
    config = load(path, GOOD)
    after = dict(flat(config.dump()))
    assert {key: after[key] for key in GOOD} == GOOD
    assert {key for key, value in flat(load(path).dump()) if after[key] != value} == GOOD.keys()
    assert path.read_text(encoding="utf-8") == STUDY


def test_overrides_reach_tables_that_the_file_leaves_out(tmp_path: Path) -> None:
    config = load(write_study(tmp_path, STUDY.split("[recipe]")[0]), {"recipe.epochs": 9, "search.trials": 3})
    assert (config.recipe.epochs, config.search.trials) == (9, 3)


@pytest.mark.parametrize("key", BAD)
def test_a_bad_override_is_laid_at_the_door_of_its_option(key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(write_study(tmp_path), {key: BAD[key]})
    text = one_line(caught)
    assert text.startswith(f"{OPTIONS[key]}: {key}: ")
    assert str(BAD[key]) in text


def test_a_rule_over_several_keys_is_reported_under_the_option_that_it_names(tmp_path: Path) -> None:
    """A study made smaller: the advice named the study file, in which nothing was to be changed."""
    path = write_study(tmp_path, _rungs("first = 3")().replace(b"epochs = 2", b"epochs = 9"))
    with pytest.raises(UserError) as caught:
        load(path, {"search.trials": 3, "recipe.epochs": 1})
    assert str(caught.value) == (
        "--epochs: search.rungs: the first is after 3 epochs, and recipe.epochs is 1; take at least 4 epochs, a lower "
        "first, or leave rungs out"
    )
    assert load(path, {"recipe.epochs": 4}).rungs == (3,)


def test_a_fault_of_the_file_is_not_laid_at_an_options_door(tmp_path: Path) -> None:
    path = write_study(tmp_path, STUDY.replace("epochs = 2", "epochs = 0"))
    with pytest.raises(UserError) as caught:
        load(path, {"search.trials": 3})
    assert one_line(caught).startswith(f"{path}: recipe.epochs")


@pytest.mark.parametrize("table", ["search = 3", "search = [1]"])
def test_an_override_of_what_is_no_table_is_the_files_fault(table: str, tmp_path: Path) -> None:
    path = write_study(tmp_path, table + STUDY.split("[search]")[0])
    with pytest.raises(UserError) as caught:
        load(path, {"search.trials": 3})
    assert one_line(caught).startswith(f"{path}: search")


def test_different_networks_of_one_name_are_rejected(tmp_path: Path) -> None:
    """The name in a study is the file's, with a `_` for each character that no file name of the study may have."""
    base, other = ((STUDIES / name).read_bytes() for name in ("quickstart/base.json", "references/eip-b.json"))
    begin, end = STUDY.index("blocks ="), STUDY.index("[recipe]")
    text = f'{STUDY[:begin]}kind = "fixed"\nnetwork = ["a b.json", "a_b.json"]\n{STUDY[end:]}'
    (tmp_path / "a b.json").write_bytes(base)
    (tmp_path / "a_b.json").write_bytes(other)
    with pytest.raises(UserError, match="two networks are called 'a_b'; rename one of the files"):
        load(write_study(tmp_path, text), {"search.trials": 1})
    (tmp_path / "a_b.json").write_bytes(base)
    config = load(write_study(tmp_path, text), {"search.trials": 1})
    assert list(config.space.networks) == ["a_b"]  # type: ignore[union-attr]


def test_a_study_of_given_networks_holds_them(tmp_path: Path) -> None:
    """So that it goes on when a file of one has gone; by the name of the file, where it is one."""
    (tmp_path / "my net.json").write_bytes((STUDIES / "quickstart" / "base.json").read_bytes())
    begin, end = STUDY.index("blocks ="), STUDY.index("[recipe]")
    for network, names in (('"eip-c"', ["eip-c"]), ('["eip-c", "my net.json"]', ["eip-c", "my_net"])):
        text = f'{STUDY[:begin]}kind = "fixed"\nnetwork = {network}\n{STUDY[end:]}'
        config = load(write_study(tmp_path, text), {"search.trials": 1})
        assert list(config.space.networks) == names  # type: ignore[union-attr]
        assert config.space.architectures["eip-c"] == references.find("eip-c").architecture  # type: ignore[union-attr]
        assert parse(json.loads(json.dumps(config.dump())), "stored") == config
        assert list(config.parameters) == (["network"] if len(names) > 1 else [])


def test_a_base_inside_the_checkout_is_reported_from_its_root() -> None:
    assert load(STUDIES / "quickstart" / "study.toml").base == "studies/quickstart/base.json"
    assert (ROOT / "studies/quickstart/base.json").is_file()


def test_a_base_outside_the_checkout_and_data_are_found_from_the_study_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    text = STUDY.replace("base.json", "../base.json").replace('name = "digits"', 'path = "own/set.npz"')
    write_study(tmp_path / "sub", text)
    monkeypatch.chdir(tmp_path)
    config = load(Path("sub/study.toml"))
    assert config.base == str(tmp_path / "base.json")
    assert config.data.path == str(tmp_path / "sub" / "own" / "set.npz")


def test_known_networks_are_found_from_the_study_file_and_reported_from_the_root_of_the_checkout(tmp_path: Path) -> None:
    names = f'["eip-c", "../own.json", "{STUDIES}/quickstart/base.json"]'
    (tmp_path / "sub").mkdir()
    config = load(write_study(tmp_path / "sub", STUDY.replace("[search]", f"[search]\nwarm_start = {names}")))
    assert config.search.warm_start == ("eip-c", str(tmp_path / "own.json"), "studies/quickstart/base.json")


@pytest.mark.parametrize("given", ['"../old/run"', '["../old/run"]'])
@pytest.mark.parametrize("key", ["adopt", "prior"])
def test_other_runs_are_found_from_the_study_file(tmp_path: Path, given: str, key: str) -> None:
    (tmp_path / "sub").mkdir()
    keys = f'[search]\n{key} = {given}\nsampler = "bayes"'
    config = load(write_study(tmp_path / "sub", STUDY.replace('sampler = "tpe"\n', "").replace("[search]", keys)))
    assert getattr(config.search, key) == (str(tmp_path / "old" / "run"),)


def test_a_shipped_prior_keeps_its_name(tmp_path: Path) -> None:
    keys = '[search]\nprior = ["cifar10-16px", "old/run"]\nsampler = "bayes"'
    config = load(write_study(tmp_path, STUDY.replace('sampler = "tpe"\n', "").replace("[search]", keys)))
    assert config.search.prior == ("cifar10-16px", str(tmp_path / "old" / "run"))


def test_a_prior_needs_the_bayes_sampler_and_runs_that_are_not_adopted() -> None:
    with pytest.raises(UserError, match=r'prior: the tpe sampler learns nothing .* sampler = "bayes"'):
        parse(plain_study(search={"prior": "other/run", "sampler": "tpe"}), "study")
    with pytest.raises(UserError, match="prior: other/run is adopted, and would count twice"):
        parse(plain_study(search={"prior": "other/run", "adopt": "other/run", "sampler": "bayes"}), "study")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_study_is_found_by_name_and_by_path(name: str) -> None:
    path = STUDIES / name / "study.toml"
    assert find(name) == (name, path)
    assert find(str(path)) == (name, path)


def test_a_study_file_of_another_name_gives_its_name(tmp_path: Path) -> None:
    path = tmp_path / "my net {x}.toml"
    path.write_text(STUDY, encoding="utf-8")
    assert find(str(path)) == ("my_net_x", path)


@pytest.mark.parametrize("study", ["../../x", "/etc/passwd", "", ".", "quickstart/", "quickstart/study", "references"])
def test_other_names_than_studies_are_rejected(study: str) -> None:
    with pytest.raises(UserError, match="no study of this name") as caught:
        find(study)
    assert repr(study) in one_line(caught)


def test_a_study_that_searches_nothing_is_rejected() -> None:
    fixed = {"blocks": 1, "width": 16, "pools": 0}
    with pytest.raises(UserError, match="nothing is searched, as every value is fixed"):
        parse({"base": 0.5, "data": {"name": "digits"}, "budget": {"params": 8_000}, "space": fixed}, "test")
