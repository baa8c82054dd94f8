"""The program of docs/microcontroller.md classifies as the export does, on TensorFlow Lite Micro where that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.data.preprocessing import RAW
from search.export import int8
from search.export.exporter import export
from tests.export.test_formats import NORMALISED, STACK, some_weights
from tests.support.pictures import picture_set
from tests.support.tflm import HAS_COMPILER, HAS_TFLM, Board

pytestmark = pytest.mark.skipif(not HAS_COMPILER, reason="no g++ here")
RUNTIMES = [
    "litert",
    pytest.param("tflite_micro", marks=pytest.mark.skipif(not HAS_TFLM, reason="tflite-micro is not installed (make tflm)")),
]
STEMS = {"best_model": False, "best_model_raw": True}
DATA = picture_set(STACK)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """C arrays of a network that takes normalised pixels, and of the same that takes raw ones."""
    folder = tmp_path_factory.mktemp("exported")
    for is_raw in STEMS.values():
        done = export(
            STACK, folder, weights=some_weights(STACK), facts={}, pixels=NORMALISED, recipe=None, formats=["c"],
            images=lambda: DATA, is_raw=is_raw,
        )  # fmt: skip
        assert not done.failed
    return folder


@pytest.fixture(scope="module")
def boards(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Board]:
    return {stem: Board(tmp_path_factory.mktemp(stem), exported, stem) for stem in STEMS}


def card_of(exported: Path, stem: str) -> dict[str, Any]:
    return dict(json.loads((exported / f"{stem}.json").read_text(encoding="utf-8"))["forms"])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("stem", STEMS)
def test_the_program_answers_as_the_card_says(stem: str, runtime: str, boards: dict[str, Board], exported: Path) -> None:
    board, card = boards[stem], card_of(exported, stem)
    assert board.start(runtime) and board.failed_vectors() == 0
    assert board.operators == card["int8"]["operators"]
    vectors, output = card["c"]["test_vectors"], card["int8"]["output"]
    for position, values in zip(vectors["val_images"], vectors["outputs"], strict=True):
        index, probability = board.classify(DATA.x_val[position])
        assert index == np.argmax(values)
        steps = probability / output["scale"] + output["zero_point"] - max(values)
        assert abs(steps) < vectors["tolerance"] + 0.01
    expected = int8.outputs(board.content, DATA.x_val[:40], NORMALISED if stem == "best_model" else RAW)
    answers = np.array([board.classify(image)[0] for image in DATA.x_val[:40]])
    top, second = np.sort(expected, axis=1)[:, ::-1][:, :2].T
    is_clear = top - second > 4 * output["scale"]
    assert is_clear.sum() > 10 and (answers == expected.argmax(axis=1))[is_clear].all()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("_arena_bytes = ", "_arena_bytes = -32 + "),
        ("resolver.AddSoftmax() == 0", "true"),
        ("MicroMutableOpResolver<best_model_int8_operators>", "MicroMutableOpResolver<2>"),
    ],
)
def test_a_program_that_lacks_memory_or_an_operator_does_not_begin(
    old: str, new: str, exported: Path, tmp_path: Path
) -> None:
    board = Board(tmp_path, exported, "best_model", {old: new})
    for runtime in ("litert", "tflite_micro") if HAS_TFLM else ("litert",):
        assert not board.start(runtime)


def test_a_program_that_converts_pixels_otherwise_fails_its_check(exported: Path, tmp_path: Path) -> None:
    """With the classes where releases before 2026 have them."""
    board = Board(tmp_path, exported, "best_model", {"_pixel(pixels[i],": "_pixel(pixels[i] / 2,"}, "-DTFLM_BEFORE_2026")
    assert board.start("litert") and board.failed_vectors() > 0


def test_a_frame_becomes_the_mean_of_its_blocks(boards: dict[str, Board]) -> None:
    board = boards["best_model"]
    assert board.start("litert")
    colours = np.random.default_rng(0).integers(0, 1 << 16, (32, 40), dtype=np.uint16)
    planes = np.stack([(colours >> 11) / 31, (colours >> 5 & 63) / 63, (colours & 31) / 31], axis=-1)
    means = planes.reshape(8, 4, 8, 5, 3).mean(axis=(1, 3)) * 255
    assert np.abs(board.shrink(colours, (8, 8, 3)) - means).max() <= 1


def test_main_prints_an_answer_for_each_frame(boards: dict[str, Board], capfd: pytest.CaptureFixture[str]) -> None:
    board = boards["best_model_raw"]
    board.load("litert")
    frames = np.random.default_rng(0).integers(0, 1 << 16, (3, 120, 160), dtype=np.uint16)
    assert board.main(frames) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "test vectors that fail: 0" and len(lines) == 4
    index, probability = board.classify(board.shrink(frames[2], (8, 8, 3)))
    assert lines[3] == f"class {index} {int(100 * probability + 0.5)}%"
