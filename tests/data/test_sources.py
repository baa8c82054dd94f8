"""Data sets that Keras downloads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.array_files import FORMS, LARGE, ROOT, assert_same_arrays, error_line, load


def _keras(load_data: Callable[[], Any], image_format: str = "channels_last") -> SimpleNamespace:
    loader = SimpleNamespace(load_data=load_data)
    config = SimpleNamespace(image_data_format=lambda: image_format)
    return SimpleNamespace(datasets=SimpleNamespace(cifar10=loader, cifar100=loader), config=config)


@pytest.mark.parametrize("image_format", ["channels_last", "channels_first"])
def test_keras_download(
    image_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = (0, 1, 2, 3) if image_format == "channels_last" else (0, 3, 1, 2)

    def load_data() -> Any:
        print("Downloading data")
        y_train, y_test = (LARGE[name].astype(np.uint8)[:, None] for name in ("y_train", "y_test"))
        return (LARGE["x_train"].transpose(axes), y_train), (LARGE["x_test"].transpose(axes), y_test)

    monkeypatch.setitem(sys.modules, "keras", _keras(load_data, image_format))
    dataset = load(name="cifar10")
    assert_same_arrays(dataset, LARGE)
    assert dataset.fingerprint == load(FORMS["npz"](tmp_path), "cifar10").fingerprint
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "Downloading data\n")


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_data() -> Any:
        raise Exception("URL fetch failure on https://host/file: None -- [Errno 111]\nConnection refused")

    monkeypatch.setitem(sys.modules, "keras", _keras(load_data))
    message = error_line(name="cifar100")
    assert message.startswith("cifar100: not cached and the download failed (URL fetch failure")
    assert "[Errno 111] Connection refused); pass --data FILE" in message


def test_an_interrupted_download_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_data() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "keras", _keras(load_data))
    with pytest.raises(KeyboardInterrupt):
        load(name="cifar10")


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_offline_and_not_cached(tmp_path: Path) -> None:
    code = (
        "from search.data.dataset import load_dataset\nfrom search.errors import UserError\n"
        "try: load_dataset('cifar10', None, protocol='course', holdout=0.1, images=None)\n"
        "except UserError as error: print(error)"
    )
    closed = "http://127.0.0.1:9"  # discard: nobody listens
    done = _python(code, KERAS_HOME=str(tmp_path), https_proxy=closed, http_proxy=closed, TF_CPP_MIN_LOG_LEVEL="3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cifar10: not cached and the download failed (URL fetch failure on https://")
    assert "--data FILE" in done.stdout and "cifar-10-batches-py" in done.stdout
    assert done.stdout.count("\n") == 1
    assert (tmp_path / "datasets").is_dir()  # Keras did look there


def test_the_import_is_light() -> None:
    done = _python("import sys, search.data.dataset; print({'keras', 'tensorflow', 'sklearn'} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr
