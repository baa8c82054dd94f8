"""Private names of Optuna and optuna-dashboard that the application uses, compared with the installed versions."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, RDBStorage

from report.dashboard import patches
from search.storage import optuna_internals
from search.storage.resilient import ResilientStorage

ROOT = Path(__file__).parents[2]
PRIVATE = {"_storage", "_study_id", "_trial_id", "_backend", "_get_trials", "_thread_local", "_cached_frozen_trial"}
ALLOWED = "search/storage/"
PRODUCT = ("search", "report", "objective.py", "space.py")

COLUMNS = {  # of Optuna's tables, as far as this application reads or writes them
    "StudyModel": {"study_id", "study_name"},
    "StudySystemAttributeModel": {"study_system_attribute_id", "study_id", "key", "value_json"},
    "TrialModel": {"trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"},
    "TrialParamModel": {"param_id", "trial_id", "param_name", "param_value", "distribution_json"},
    "TrialValueModel": {"trial_value_id", "trial_id", "objective", "value", "value_type"},
    "TrialIntermediateValueModel": {
        *("trial_intermediate_value_id", "trial_id", "step", "intermediate_value", "intermediate_value_type")
    },
    "TrialUserAttributeModel": {"trial_user_attribute_id", "trial_id", "key", "value_json"},
    "TrialSystemAttributeModel": {"trial_system_attribute_id", "trial_id", "key", "value_json"},
    "TrialHeartbeatModel": {"trial_heartbeat_id", "trial_id", "heartbeat"},
}
METHODS = {  # parameters of the models' methods that are called
    "StudyModel.find_or_raise_by_id": ("study_id", "session", "for_update"),
    "TrialModel.find_or_raise_by_id": ("trial_id", "session", "for_update"),
    "TrialValueModel.value_to_stored_repr": ("value",),
    "TrialHeartbeatModel.where_trial_id": ("trial_id", "session", "for_update"),
}
PATCHED = {  # optuna-dashboard's functions that `report.dashboard.patches` replaces
    "_note.get_note_from_system_attrs": ("system_attrs", "trial_id"),
    "_serializer.list_trial_artifacts": ("study_system_attrs", "trial_system_attrs", "trial"),
    "_custom_plot_data.list_graph_object_ids": ("system_attrs",),
    "_app.json_api_view": ("view",),
    "artifact._backend.json_api_view": ("view",),
}


def test_optuna_is_the_version_that_was_compared() -> None:
    """pyproject.toml allows the same: `optuna>=5.0,<5.1`."""
    assert optuna.__version__.startswith("5.0.")
    assert '"optuna>=5.0,<5.1"' in (ROOT / "pyproject.toml").read_text()


def test_every_model_that_is_used_has_its_columns() -> None:
    models = {name for name in vars(optuna_internals) if name.endswith("Model")}
    assert models == COLUMNS.keys()
    for name, columns in COLUMNS.items():
        assert set(getattr(optuna_internals, name).__table__.c.keys()) == columns


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_models_have_their_parameters(name: str) -> None:
    model, method = name.split(".")
    assert tuple(inspect.signature(getattr(getattr(optuna_internals, model), method)).parameters) == METHODS[name]


def test_studies_and_trials_have_their_private_attributes() -> None:
    study = optuna.create_study()
    trial = study.ask()
    assert isinstance(study._storage, BaseStorage)
    assert isinstance(study._study_id, int)
    assert trial._trial_id == study.get_trials()[0]._trial_id
    parameters = inspect.signature(optuna.Study._get_trials).parameters
    assert tuple(parameters) == ("self", "deepcopy", "states", "use_cache")


def test_the_storage_implements_the_public_interface_and_overrides_nothing_private() -> None:
    """Optuna's storage calls a method that is not defined here in vain: `BaseStorage` would answer without a retry."""
    own = {name: value for name, value in vars(ResilientStorage).items() if callable(value)}
    assert BaseStorage.__abstractmethods__ <= own.keys()
    public = {name for name in vars(BaseStorage) if not name.startswith("_")}
    for name in public & own.keys():
        theirs = tuple(inspect.signature(getattr(BaseStorage, name)).parameters)
        assert tuple(inspect.signature(own[name]).parameters) == theirs, name
    assert {name for name in own if name.startswith("_") and not name.startswith("__")}.isdisjoint(
        {*dir(BaseStorage), *dir(RDBStorage)}
    )


@pytest.mark.parametrize("name", PATCHED)
def test_functions_of_the_dashboard_that_are_replaced_have_their_parameters(name: str) -> None:
    module, _, function = name.rpartition(".")
    found = getattr(importlib.import_module(f"optuna_dashboard.{module}"), function)
    if getattr(found, "__module__", "").startswith("optuna_dashboard"):  # else another test has applied the patches
        assert tuple(inspect.signature(found).parameters) == PATCHED[name]
    assert set(PATCHED) == {f"{module}.{function}" for module, function, _ in patches.PATCHES}


def private_names(tree: ast.Module) -> set[str]:
    """Private modules and attributes of Optuna, and SQLAlchemy, in a module."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and not _is_own(node)} & PRIVATE
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in modules:
                if module.startswith("sqlalchemy") or (module.startswith("optuna.") and "._" in module):
                    names.add(module)
    return names


def _is_own(node: ast.Attribute) -> bool:
    value: Any = node.value
    return isinstance(value, ast.Name) and value.id == "self"


def test_private_names_stay_in_the_storage_package() -> None:
    assert private_names(ast.parse("from optuna.storages._rdb import models\nstudy._storage\nself._storage")) == {
        *("optuna.storages._rdb", "_storage")
    }
    for top in PRODUCT:
        for path in [ROOT / top] if top.endswith(".py") else (ROOT / top).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(ALLOWED):
                assert private_names(ast.parse(path.read_text(encoding="utf-8"))) == set(), name
