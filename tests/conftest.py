"""Set before TensorFlow is imported: its log says nothing; Hypothesis draws the same examples in every run."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, settings
from optuna.storages._rdb.storage import _VersionManager

from tests.support.forking import fork_processes, real_processes
from tests.support.order import sort_by_file
from tests.support.progress import show_progress
from tests.support.servers import postgres
from tests.support.syncing import skip_syncing, synced

__all__ = ["postgres", "real_processes", "synced"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts `make test &` with SIGINT ignored, and all processes of the tests would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")  # as `prepare_device` sets it, in whichever order the files are run

fork_processes()
skip_syncing()

settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.register_profile(  # pytest tests/test_fuzz_*.py --hypothesis-profile=long
    "long", settings.get_profile("repeatable"), derandomize=False, max_examples=6_000, print_blob=True
)
settings.load_profile("repeatable")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """SQLAlchemy's pool leaves PostgreSQL's connections to the garbage collector, like SQLite's."""
    show_progress(config)
    _load_migrations_once()
    config.addinivalue_line("filterwarnings", "ignore:<psycopg.Connection object:ResourceWarning")


def _load_migrations_once() -> None:
    """Let all databases that tests create share Optuna's migration scripts, whose loading takes 0.1 s a database."""
    load, loaded = _VersionManager._create_alembic_script, list[ScriptDirectory]()

    def load_once(manager: _VersionManager) -> ScriptDirectory:
        if not loaded:
            loaded.append(load(manager))
        return loaded[0]

    _VersionManager._create_alembic_script = load_once  # type: ignore[method-assign]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    sort_by_file(items)


def pytest_collection_finish() -> None:
    """Leave what the tests have imported by now out of every later garbage collection: a million objects of TensorFlow."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _forget_models() -> Iterator[None]:
    """Clear Keras' state between files."""
    yield
    if keras := sys.modules.get("keras"):
        keras.backend.clear_session()


@pytest.fixture
def patched() -> Iterator[None]:
    """optuna-dashboard's functions replaced as the dashboard does it, and put back."""
    from report.dashboard import patches as dashboard_patches

    found = [(importlib.import_module(f"optuna_dashboard.{module}"), name) for module, name, _ in dashboard_patches.PATCHES]
    own = [getattr(module, name) for module, name in found]
    dashboard_patches.apply()
    yield
    for (module, name), function in zip(found, own, strict=True):
        setattr(module, name, function)
