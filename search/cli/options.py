"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from search.budget.metrics import METRICS
from search.errors import UserError

Study = Annotated[str, typer.Argument(help="a name under studies/, or the path of a study file (TOML) or of its folder")]
Out = Annotated[Path | None, typer.Option(help="run folder; default: studies/NAME/run", file_okay=False)]
Storage = Annotated[
    str | None,
    typer.Option(help="database URL; default: study.db in the run folder", envvar="SEARCH_STORAGE", show_envvar=True),
]
Workers = Annotated[
    int | None, typer.Option(help="number of workers that train in parallel on this machine", min=1, max=1024)
]
PerGpu = Annotated[
    int | None,
    typer.Option(help="number of workers on each GPU of this machine", min=1, max=64),
]
RayAddress = Annotated[str | None, typer.Option(help="Ray cluster to train on; auto: the cluster of this machine")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Device = Annotated[
    str | None,
    typer.Option(help="memory on a microcontroller, one card a candidate: a chip, or RAM/flash such as 64KB/64KB"),
]
Pareto = Annotated[
    list[str] | None,
    typer.Option(help=f"front of accuracy against a cost metric: {', '.join(METRICS)}; may be repeated"),
]
# Options that override a study file, see `search.study.config.OPTIONS`.
Data = Annotated[
    str | None,
    typer.Option(help="a folder of images by class, an .npz file, or CIFAR's official folder or .tar.gz"),
]
Epochs = Annotated[int | None, typer.Option(help="epochs of each training")]
Trials = Annotated[int | None, typer.Option(help="total number of trained candidates")]
Images = Annotated[int | None, typer.Option(help="number of training images to use; the other splits shrink in proportion")]
Seed = Annotated[int | None, typer.Option(help="root seed: all random numbers derive from it")]
BatchSize = Annotated[int | None, typer.Option(help="images per training step")]


def check_device_option(device: str | None) -> None:
    """Check `--device` before anything is loaded.

    Raises:
        UserError: it is neither a chip nor a profile.
    """
    if device is None:
        return
    from search.budget.devices import check_device

    try:
        check_device(device)
    except ValueError as error:
        raise UserError(f"--device: {error}") from None


def overrides(
    data: str | None, epochs: int | None, trials: int | None, images: int | None, seed: int | None, batch_size: int | None
) -> dict[str, Any]:
    """Values of the options that override a study file, by its keys."""
    from search.study.config import OPTIONS

    given = {"data": str(Path(data).resolve()) if data else None, "images": images, "epochs": epochs}
    given |= {"batch-size": batch_size, "trials": trials, "seed": seed}
    return {key: given[option[2:]] for key, option in OPTIONS.items() if given[option[2:]] is not None}
