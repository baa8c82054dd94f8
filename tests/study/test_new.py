"""A study for one's own images: what is seen of them, what is proposed, what is written, and that it runs as it stands."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from search.cli.new_summary import print_new
from search.data import images
from search.errors import UserError
from search.networks.architecture import load as load_network
from search.study import new, study_file
from search.study import template as study_text
from search.study.dataset import load_study_data
from search.study.new import make
from search.study.survey import survey_space
from tests.data.test_folders import X, Y, put, put_all
from tests.support import commands
from tests.support.proposed import ROOT, colourful

# --- what is written -------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_study_file(words: str) -> None:
    assert tomllib.loads(f"a = {study_text._text(words)}") == {"a": words}
    assert tomllib.loads(f"a = {study_text._toml({'b': [words, 1, True, 0.5]})}") == {"a": {"b": [words, 1, True, 0.5]}}


def test_text_that_is_none_is_rejected() -> None:
    with pytest.raises(UserError, match="is no text in UTF-8"):
        study_text._text("caf\udce9")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colour images of several sizes in three classes of an unequal kind, and what else lies about."""
    folder = tmp_path_factory.mktemp("mine") / 'my "photographs"'
    for number, (name, n) in enumerate({"a\tcat": 100, "dög": 30, "fox": 40, "[rare]": 3}.items()):
        colourful(folder / name, n, (30 + number, 40), seed=number)
    (folder / "fox" / "notes.txt").write_text("brown")
    (folder / "fox" / "again.jpg").symlink_to("000.jpg")
    (folder / "dög" / "copy.jpg").write_bytes((folder / "fox" / "000.jpg").read_bytes())
    return folder


TOLD: list[tuple[int, int]] = []


@pytest.fixture(scope="module")
def made(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> new.New:
    return make("photos", photographs, 20_000, tmp_path_factory.mktemp("studies"), lambda *words: TOLD.append(words))


def test_a_study_is_written_that_loads_as_it_stands(made: new.New) -> None:
    assert made.file.parts[-2:] == ("photos", "study.toml")
    assert sorted(path.name for path in made.file.parent.iterdir()) == ["base.json", "study.toml"]
    found = study_file.load(made.file)
    assert found.dump() == made.config.dump()
    assert found.data.options == images.Options((28, 28), classes=("a?cat", "dög", "fox"))
    assert (found.budget.params, found.recipe.class_weights.first, found.recipe.augment.flip) == (20_000, "none", True)
    assert (made.data.class_names, made.data.input_shape) == (("a?cat", "dög", "fox"), (28, 28, 3))
    assert made.config.data.drop_copies and made.data.copies.contradicting == made.data.copies.dropped == 2
    assert (made.seen.doubles, made.seen.too_few) == (1, {"[rare]": 3})
    base = load_network(made.file.parent / "base.json")
    assert (base.input, base.classes) == ((28, 28, 3), 3)
    assert made.survey.share_that_fits > 0
    assert TOLD
    text = made.file.read_text()
    assert "always guessing a?cat would be right for 58.5%" in text
    assert '# "[rare]",  # 3' in text
    assert all(len(line) < 140 for line in text.splitlines())


def test_the_new_study_is_printed_with_the_next_commands(made: new.New) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    print_new(console, made)
    text = " ".join(console.export_text().split())
    for words in (
        "│ a?cat │ 60 │ 20 │ 20 │ 59.2% │",
        "Classes with fewer than 25 images are left out: [rare] (3).",
        "Unbalanced: always guessing a?cat would be right for 58.5%.",
        "2 contradict each other (equal pixels, different classes); 2 of them dropped.",
        "1 links to images in the same folder are left out",
        "left out: 1 files that are no PNG, JPEG, BMP, GIF, WebP, TIFF or PPM (.txt).",
        f"python -m search run {made.file.parent}",
    ):
        assert words in text


def test_a_study_that_is_there_is_left_alone(made: new.New, photographs: Path) -> None:
    folder = made.file.parent
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="photos: exists already and was not changed; pass another name, or remove it"):
        make("photos", photographs, 30_000, folder.parent)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a b", ".hidden", "references", "priors"])
def test_a_name_that_is_none_is_rejected(name: str, photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a valid name of a study"):
        make(name, photographs, 20_000, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_behind_where_it_cannot_be_done(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"budget\.params: 300 is out of reach"):
        make("photos", photographs, 300, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        make("photos", photographs, 20_000, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_damaged_images_are_listed_and_the_study_skips_them(tmp_path: Path) -> None:
    """One that is no image by its header and one that is cut off; a run leaves out the same."""
    put_all(tmp_path / "set", X[:400], Y[:400])
    good = next((tmp_path / "set" / "4").iterdir())
    bad = {tmp_path / "set/3/bad.png": b"no image", tmp_path / "set/4/cut.png": good.read_bytes()[:-40]}
    for path, content in bad.items():
        path.write_bytes(content)
    made = make("mine", tmp_path / "set", 20_000, tmp_path)
    listed = (tmp_path / "mine/damaged.txt").read_text().splitlines()
    assert sorted(line.split(": ")[0] for line in listed) == sorted(map(str, bad))
    assert made.config.data.skip_damaged and "# 2 images cannot be decoded" in made.file.read_text()
    assert len(made.data.y_train) + len(made.data.y_val) + len(made.data.y_test) == 400  # type: ignore[arg-type]
    console = Console(width=200, record=True, file=io.StringIO())
    print_new(console, made)
    assert f"2 damaged images are left out; they are listed in {tmp_path}/mine/damaged.txt." in console.export_text()
    run = load_study_data(made.config, tmp_path / "run")
    assert run.fingerprint == made.data.fingerprint
    assert "left out: 2 damaged images" in run.summary()
    assert sorted((tmp_path / "run/damaged.txt").read_text().splitlines()) == sorted(listed)
    strict = study_file.load(made.file, {"data.skip_damaged": False})
    with pytest.raises(UserError, match=r"\(and 1 more\); .*skip_damaged = true leaves damaged images out"):
        load_study_data(strict)


def test_a_folder_of_damaged_images_alone_is_rejected_and_nothing_left_behind(tmp_path: Path) -> None:
    put_all(tmp_path / "set", X[:400], Y[:400])
    for path in (tmp_path / "set").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"no PNG, JPEG, BMP, GIF, WebP, TIFF or PPM image.*so are all of the 400 images"):
        make("mine", tmp_path / "set", 20_000, tmp_path)
    assert not (tmp_path / "mine").exists()


def test_twelve_bits_in_sixteen_are_proposed_to_be_scaled(tmp_path: Path) -> None:
    put_all(tmp_path / "set", X[:600].astype(np.uint16) * 16, Y[:600])
    made = make("mine", tmp_path / "set", 20_000, tmp_path)
    assert made.config.data.bits == 12
    assert len(np.unique(made.data.x_train)) == 17
    without = load_study_data(study_file.load(made.file, {"data.bits": None}))
    assert len(np.unique(without.x_train)) <= 17 and without.x_train.max() == 16
    assert "no pixel is brighter than 16 of 255: scale the arrays, or give [data] bits" in without.summary()


def test_copies_are_proposed_to_be_dropped_and_a_run_drops_the_same(tmp_path: Path) -> None:
    put_all(tmp_path / "set", X[:600], Y[:600])
    put_all(tmp_path / "set", X[:30], Y[:30], lambda label: f"{label}/again")
    put_all(tmp_path / "set", X[30:32], Y[30:32], lambda label: f"{(label + 1) % 10}/wrong")
    made = make("mine", tmp_path / "set", 20_000, tmp_path)
    assert made.config.data.drop_copies and "# copies: " in made.file.read_text()
    assert made.data.copies.contradicting == 4 and made.data.copies.dropped == 34
    assert load_study_data(made.config).fingerprint == made.data.fingerprint
    kept = load_study_data(study_file.load(made.file, {"data.drop_copies": False}))
    assert kept.fingerprint != made.data.fingerprint and len(kept.y_train) > len(made.data.y_train)
    assert "; copies: " in kept.summary() and "dropped" not in kept.summary()


def test_left_out_files_are_counted_alike_by_new_and_run(tmp_path: Path) -> None:
    """Also where a class is left out, as it is too small, with what lies in it."""
    put_all(tmp_path / "set", X[:600], Y[:600])
    put(tmp_path / "set/rare/1.png")
    for name in ("0/notes.txt", "1/notes.txt", "rare/notes.txt"):
        (tmp_path / "set" / name).write_text("")
    made = make("mine", tmp_path / "set", 20_000, tmp_path)
    console = Console(width=200, record=True, file=io.StringIO())
    print_new(console, made)
    text = "left out: 2 files that are no"
    assert text in console.export_text() and text in load_study_data(made.config).summary()


def test_data_in_the_checkout_are_named_from_the_study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that both can move together."""
    monkeypatch.setattr(study_text, "ROOT", tmp_path)
    monkeypatch.setattr(new, "STUDIES", tmp_path / "studies")
    put_all(tmp_path / "data/set", X[:600], Y[:600])
    made = make("mine", tmp_path / "data/set", 20_000)
    assert made.called == "mine"
    assert tomllib.loads(made.file.read_text())["data"]["path"] == "../../data/set"
    assert made.config.data.path == str(tmp_path / "data/set")


def scenes(folder: Path, form: str, n: int = 40, each: int = 6) -> Path:
    """Frames of scenes, which differ by noise; every other scene is of one class."""
    random = np.random.default_rng(0)
    for number in range(n * each):
        if number % each == 0:
            tiny = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
            scene = np.asarray(tiny.resize((16, 16), Image.Resampling.BICUBIC)).astype(np.int64)
        frame = (scene + random.integers(-3, 4, scene.shape)).clip(0, 255).astype(np.uint8)
        put(folder / "ab"[number // each % 2] / form.format(scene=number // each, number=number), frame)
    return folder


@pytest.fixture
def quick_survey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new, "survey_space", lambda *given: survey_space(*given, draws=10))


@pytest.mark.usefixtures("quick_survey")
@pytest.mark.parametrize(
    ("form", "group", "line"),
    [
        (
            "video{scene}_{number}.png",
            r"video[ _-]?\d+",
            r"group = 'video[ _-]?\d+'        # keeps a group on one side of every split",
        ),
        ("x{scene}y_{number}.png", None, "# group = '^(.+?)[ ._(-]*\\d+\\)?\\.\\w+$' # if they belong together: "),
        ("{number}.png", None, "# group = '^(.+?)[ ._(-]*\\d+\\)?\\.\\w+$' # if they belong together: "),
    ],
)
def test_frames_of_a_scene_are_grouped_or_reported(form: str, group: str | None, line: str, tmp_path: Path) -> None:
    made = make("mine", scenes(tmp_path / "set", form), 20_000, tmp_path)
    assert made.config.data.group == group and line in made.file.read_text()
    console = Console(width=300, record=True, file=io.StringIO())
    print_new(console, made)
    text = console.export_text()
    if group is not None:
        assert made.problems.near_copies == {} and "group = 'video[ _-]?\\d+' keeps them together." in text
        assert load_study_data(made.config).fingerprint == made.data.fingerprint
    else:
        assert made.problems.near_copies["train", "val"] > 30
        assert f"Near copies: {made.problems.near_copies['train', 'val']} validation images of a training image, " in text
        assert ("The names end in numbers" in text) == ("scene" in form)


@pytest.mark.usefixtures("quick_survey")
def test_near_copies_in_an_array_file_ask_for_its_groups(tmp_path: Path) -> None:
    data = make("mine", scenes(tmp_path / "set", "{number}.png"), 20_000, tmp_path).data
    x, y = np.concatenate([data.x_train, data.x_val]), np.concatenate([data.y_train, data.y_val])
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=data.x_test, y_test=data.y_test)
    text = make("array", tmp_path / "a.npz", 20_000, tmp_path).file.read_text()
    assert "\n# near copies: " in text and "# an array groups_train in the file keeps a group on one side" in text
    groups = np.arange(len(y))
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=data.x_test, y_test=data.y_test, groups_train=groups // 2)
    assert "groups of a.npz: " in make("grouped", tmp_path / "a.npz", 20_000, tmp_path).data.summary()


# --- the whole way ---------------------------------------------------------------------------------------------------


def search(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "search", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.long
def test_from_a_folder_to_a_trained_network(tmp_path: Path) -> None:
    put_all(tmp_path / "set", X, Y)
    asked = ["mine", "--data", str(tmp_path / "set"), "--budget", "3000", "--to", str(tmp_path)]
    made = commands.search("new", *asked)
    assert (made.status, made.err) == (0, "")
    assert made.out.splitlines()[-1].split() == ["python", "-m", "search", "run", f"{tmp_path}/mine"]
    planned = commands.search("plan", f"{tmp_path}/mine", "--json")
    assert planned.status == 0 and '"share_that_fits"' in planned.out
    run = search("run", f"{tmp_path}/mine", "--trials", "1", "--epochs", "2")
    assert run.returncode == 0, run.stderr
    assert "set: 1,079 training, 359 validation, 359 test images of 8x8x1, 10 classes (holdout)" in " ".join(
        run.stdout.split()
    )
    assert (tmp_path / "mine/run/best_model.keras").is_file()
