"""A study as an object: written from keyword arguments or read from its file, run, inspected and exported.

Every method does what the command of its name does, by the same code, and prints what it prints.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from search.api.study_toml import study_text
from search.cli import export as export_command
from search.cli import run as run_commands
from search.cli import setup as setup_commands
from search.errors import UserError, nearest
from search.files import write_arrays, write_text
from search.study import study_file
from search.study.config import StudyConfig
from space import KINDS

if TYPE_CHECKING:
    from search.networks.architecture import Architecture
    from search.study.run import Opened

TABLES = ("protocol", "base", "data", "budget", "space", "recipe", "search", "stop")  # of a study file, in their order
HEADING = "Written by search.Study from Python; changes are lost when it is written again."
ARRAYS = ("x_", "y_", "groups")  # how the names of arrays in a dict of data begin
warnings.filterwarnings("ignore", message="IProgress not found")  # in notebooks, of a progress bar that is not used
IMAGES = "images.npz"  # in the study's folder: images that were given as arrays


class Study:
    """A study, by its name or file, or from the values of its tables.

        from search import Study

        study = Study("quickstart")
        study = Study(folder="flowers", base=0.8, data="photos/", budget=50_000, search={"trials": 20})
        study.plan()
        study.run()
        study.leaderboard()

    Tables are those of docs/study-file.md, as dicts. From keyword arguments a study file is written, `FOLDER/study.toml`, so
    that the command line can resume the study too.

    Attributes:
        path: the study file.
        out: the run folder, None for the default.
        storage: the database URL, None for the default.
    """

    def __init__(
        self,
        study: str | os.PathLike[str] | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        out: str | os.PathLike[str] | None = None,
        storage: str | None = None,
        **tables: Any,
    ) -> None:
        """Read a study file, or write one.

        Args:
            study: a name under studies/, or the path of a study file or of its folder.
            folder: instead of `study`, the folder to write a study file in, from `tables`.
            out: the run folder, instead of the default beside the study file.
            storage: a database URL, instead of a SQLite file in the run folder.
            tables: `base` (a reference, an architecture file, or an accuracy), `budget` (a dict, or a number of parameters),
                `data` (a dict, the name of a data set, the path of images, or a dict with arrays `x_train`, `y_train`,
                `x_test`, `y_test` and perhaps `x_val`, `y_val` of shapes (n, height, width, channels) and (n,), and
                `groups_train` (n,) of images that are kept together), `space` (a dict, or a search space object, also of a
                class of your own), `recipe`, `search`, `stop`, `protocol`.

        Raises:
            UserError: there is no such study, or a value breaks a rule.
        """
        self.out = None if out is None else Path(out)
        self.storage = storage
        if (study is None) == (folder is None):
            raise UserError("Study: pass a study by its name or file, or a folder with the tables of a new one")
        if study is not None:
            if tables:
                raise UserError(f"Study: {next(iter(tables))} belongs to a new study; pass folder=... instead of {study!r}")
            self.path = study_file.find(os.fspath(study))[1]
        else:
            assert folder is not None
            self.path = _write(Path(folder), tables)
            return
        study_file.load(self.path)

    def __repr__(self) -> str:
        return f"Study({str(self.path)!r})"

    @property
    def config(self) -> StudyConfig:
        """The checked content of the study file."""
        return study_file.load(self.path)

    @property
    def opened(self) -> Opened:
        """The run with its records so far, as `report.figures` takes it: `figures.learning_curves(*study.opened)`."""
        from search.study.run import open_study

        return open_study(str(self.path), self.out, self.storage)

    def plan(self, *, probe: bool = False, **options: Any) -> None:
        """Survey the space under the budget; with `probe` forecast the time of the study.

        Args:
            options: `data`, `epochs`, `trials`, `images`, `seed`, `batch_size`, which override the study file.
        """
        setup_commands.plan(str(self.path), probe=probe, **options)

    def run(self, **options: Any) -> Any:
        """Train the base, then candidates until the study has its number of trials; an earlier run is resumed.

        Args:
            options: as of `plan`, and `workers`, `trials_per_gpu`, `ray_address`, `reference` (a list of names).

        Returns:
            The leaderboard, see there.

        Raises:
            UserError: the input is at fault; nothing is lost.
            KeyboardInterrupt: it was interrupted; everything is kept, and `run` resumes.
        """
        from search.runner.supervisor import Interrupted

        try:
            run_commands.run(str(self.path), out=self.out, storage=self.storage, **options)
        except Interrupted:
            raise KeyboardInterrupt("everything is kept, and run() resumes") from None
        return self.leaderboard()

    def finals(self, *, top: int = 5, seeds: int = 5, **options: Any) -> Any:
        """Train the best candidates and the base again on fresh seeds.

        Args:
            options: `control` ("random"), `again`, `workers`, `trials_per_gpu`; see `python -m search finals --help`.

        Returns:
            A row for each finalist, best mean first.
        """
        from report import rows
        from search.runner.supervisor import Interrupted

        try:
            run_commands.finals(str(self.path), top=top, seeds=seeds, out=self.out, storage=self.storage, **options)
        except Interrupted:
            raise KeyboardInterrupt("everything is kept, and finals() resumes") from None
        return _table(rows.finals(self.opened))

    def leaderboard(self) -> Any:
        """The base, other references, then the candidates by rank.

        Returns:
            A DataFrame where pandas is there, else a list of dicts, which a notebook shows as a table.
        """
        from report import rows

        return _table(rows.leaderboard(self.opened))

    def trials(self) -> Any:
        """Every trial with all that was sampled, as `leaderboard`."""
        from report import rows

        return _table(rows.trials(self.opened))

    def layers(self, number: int | None = None) -> Any:
        """The layers of a trial's network, of the best if there is no number, as `leaderboard`."""
        from report import rows

        return _table(rows.layers(self.opened, number))

    def network(self, number: int | None = None) -> Architecture:
        """The architecture of a trial, of the best if there is no number."""
        from search.study.run import network_of

        return network_of(self.opened.run, number)

    def export(
        self, number: int | None = None, *, to: str | os.PathLike[str] | None = None, formats: Sequence[str] | None = None
    ) -> Path:
        """Export a trained network, the best if there is no number.

        Args:
            to: the folder to write to; the run folder if None.
            formats: such as ["keras", "tflite"]; all that apply if None.

        Returns:
            The folder.

        Raises:
            RuntimeError: a format could not be written; the others are.
        """
        import typer

        folder = self.opened.run.folder if to is None else Path(to)
        try:
            export_command.export(
                str(self.path), number, to=None if to is None else folder, form=None if formats is None else list(formats),
                out=self.out, storage=self.storage,
            )  # fmt: skip
        except typer.Exit as ended:
            raise RuntimeError(f"{folder}: not every format could be exported; see the lines above") from ended
        return folder


def _write(folder: Path, tables: Mapping[str, Any]) -> Path:
    """Write a study file and the images that were given as arrays, once the tables are checked; return its path.

    Raises:
        UserError: a table is at fault, or a file of the user's, or of a study that has begun, would be replaced.
    """
    unknown = [name for name in tables if name not in TABLES]
    if unknown:
        raise UserError(f"Study: {unknown[0]} is no table of a study file, {nearest(unknown[0], TABLES)}")
    path = folder / "study.toml"
    if path.exists() and HEADING not in path.read_text(encoding="utf-8"):
        raise UserError(f"{path}: was not written by Study; pass another folder, or Study({str(path)!r}) to use it as it is")
    content = {name: tables[name] for name in TABLES if name in tables}
    arrays = dict[str, Any]()
    if "data" in content:
        content["data"], arrays = _data_table(content["data"])
    if isinstance(content.get("budget"), int):
        content["budget"] = {"params": content["budget"]}
    if isinstance(content.get("space"), BaseModel):
        content["space"] = _space_table(content["space"])
    if isinstance(content.get("base"), os.PathLike):
        content["base"] = str(Path(content["base"]).resolve())
    text = study_text(HEADING, content)
    study_file.loads(text.encode(), path)
    images = folder / IMAGES
    if arrays and not _holds(images, arrays):
        if (folder / "run" / "config.json").exists():
            raise UserError(f"{images}: the study began with other images; pass another folder, or the images it began with")
        folder.mkdir(parents=True, exist_ok=True)
        write_arrays(images, arrays)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def _data_table(data: object) -> tuple[object, dict[str, Any]]:
    """(The [data] table of a name, a path, or a dict; the arrays that the dict holds)."""
    if isinstance(data, os.PathLike) or (isinstance(data, str) and Path(data).exists()):
        return {"path": str(Path(data).resolve())}, {}
    if isinstance(data, str):
        return {"name": data}, {}
    if not isinstance(data, Mapping):
        return data, {}
    arrays = {key: np.asarray(value) for key, value in data.items() if key.startswith(ARRAYS)}
    for key, array in arrays.items():
        if array.dtype == object and key.startswith("groups"):  # texts of a table, such as a column of pandas
            arrays[key] = array.astype(str)
    rest = {key: value for key, value in data.items() if key not in arrays}
    if isinstance(rest.get("path"), str | os.PathLike):
        rest["path"] = str(Path(rest["path"]).resolve())
    return ({"path": IMAGES} | rest if arrays else rest), arrays


def _holds(path: Path, arrays: Mapping[str, Any]) -> bool:
    """True if an archive holds these arrays already."""
    if not path.is_file():
        return False
    with np.load(path) as stored:
        return set(stored.files) == set(arrays) and all(np.array_equal(stored[key], arrays[key]) for key in arrays)


def _space_table(space: BaseModel) -> dict[str, Any]:
    """The [space] table of a search space object."""
    table = space.model_dump(mode="json")
    if isinstance(space, tuple(KINDS.values())):
        return {"kind": table.pop("kind"), **table}
    name = type(space).__name__
    try:
        source = inspect.getsourcefile(type(space))
    except TypeError:  # defined in a notebook
        source = None
    if source is None or not source.endswith(".py") or not Path(source).is_file():
        raise UserError(
            f"space: {name} is defined in no Python file, and the processes that train could not load it; move it to one"
        )
    return {"kind": f"{Path(source).resolve()}:{name}"} | table


class Rows(list[dict[str, Any]]):
    """Rows with the same keys, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in (self[0] if self else ()))
        body = "".join(f"<tr>{''.join(map(_cell, row.values()))}</tr>" for row in self)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"<td>{escape(text)}</td>"


def _table(rows: list[dict[str, Any]]) -> Any:
    if importlib.util.find_spec("pandas") is None:
        return Rows(rows)
    import pandas

    return pandas.DataFrame(rows)
