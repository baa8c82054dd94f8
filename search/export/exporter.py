"""A network to take away, in every form that applies; each is read back and compared before any file is replaced.

Keras is imported only where trained weights are at hand, so that an untrained reference is exported without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.errors import UserError, nearest
from search.export.card import Files, digest, files_of, network_digest
from search.export.format import Form, Subject
from search.export.keras_formats import ADD, CARD, KERAS, PY
from search.export.portable_formats import INT8, ONNX, TFLITE, C
from search.files import replacing
from search.networks.architecture import Architecture

# In the order in which they are written: the card, with what is known of the others, last. A new form is one more record.
FORMS = {form.name: form for form in (KERAS, PY, ADD, TFLITE, INT8, C, ONNX, CARD)}
QUICK = ("py", "json", "keras")  # those that take no noticeable time


@dataclass(frozen=True)
class Exported:
    """What an export left in its folder."""

    paths: Mapping[str, tuple[Path, ...]]  # the files of each form
    forms: Mapping[str, Mapping[str, Any]]  # what was measured of each, as the card has it
    left_out: Mapping[str, str]  # forms that nobody asked for by name, and why they do not apply
    removed: tuple[Path, ...]  # files of another network, which an earlier export had left under these names


def export(
    architecture: Architecture,
    folder: Path,
    *,
    weights: Sequence[npt.NDArray[Any]] | None,
    facts: Mapping[str, Any],
    pixels: Pixels,
    recipe: Mapping[str, Any] | None,
    forms: Sequence[str] | None = None,
    stem: str = "best_model",
    heading: Sequence[str] = (),
    images: Callable[[], Dataset] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write forms of a network into a folder; all are checked before the first file is replaced.

    The card comes with every form of a trained network. It tells of all files of this name that are the network's, also of
    those that an earlier export wrote; where these were another network's, they go.

    Args:
        weights: in the order of the model's own; None for a network that has not been trained.
        facts: more entries of the card (scores, seeds, data), plain JSON values.
        recipe: how it was trained; its initialiser goes into the source.
        forms: names out of FORMS; None takes all that apply.
        heading: lines for whoever opens a source.
        images: reads what it was trained and validated on, for the forms that are calibrated or measured.
        tell: is told what is being done, a line for each form.

    Raises:
        UserError: a form that is unknown or does not apply, weights that are not the network's, or a folder that cannot
            be written.
        RuntimeError: a form, read back, is another network; files of an earlier export are left as they were.
    """
    subject = Subject(architecture, weights, pixels, recipe, facts, heading, stem, images)
    chosen, left_out = _chosen(subject, forms)
    if weights is not None and chosen != [CARD]:
        _ = subject.model  # refuses weights of another network
    before, own = files_of(folder / f"{stem}.json"), None if weights is None else network_digest(architecture, weights)
    kept, strangers = _earlier(before, own, {name for form in chosen for name in form.names(stem)}, stem)
    files = Files(kept.sha256, kept.forms, own)
    paths = {form.name: tuple(folder / name for name in form.names(stem)) for form in chosen}
    try:
        with ExitStack() as stack:  # which closes in reverse: the card, with the digests of the others, is replaced last
            drafts = {
                form.name: [stack.enter_context(replacing(path)) for path in paths[form.name]] for form in chosen[::-1]
            }
            for form in chosen:
                tell(f"{form.name:<8}{form.doing}")
                facts_of_form = _write(form, subject, drafts[form.name], files)
                if form is not CARD:
                    files = _with(files, form, stem, drafts[form.name], facts_of_form)
        removed = tuple(folder / name for name in strangers)
        for path in removed:
            path.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: the export cannot be written ({reason}); pass another folder") from error
    return Exported(paths, files.forms, left_out, removed)


def refuse_unknown(names: Sequence[str] | None) -> None:
    """Before anything is loaded.

    Raises:
        UserError: one of the names is no form's.
    """
    for name in names or ():
        if name not in FORMS:
            raise UserError(f"form {name!r} is not known, {nearest(name, FORMS)}")


def _chosen(subject: Subject, names: Sequence[str] | None) -> tuple[list[Form], dict[str, str]]:
    """The forms to write, in their order, and why others are left out."""
    untrained = f"{subject.architecture.name or 'the network'} has not been trained"
    simple = [form.name for form in FORMS.values() if not form.trained]
    left_out = {}
    refuse_unknown(names)
    for name in FORMS if names is None else names:
        form = FORMS[name]
        if form.trained and subject.weights is None:
            if names is not None:
                raise UserError(f"{untrained}; --form {', '.join(simple[:-1])} or {simple[-1]}")
        elif reason := form.missing(subject):
            if names is not None:
                raise UserError(f"--form {name}: {reason}")
            left_out[name] = reason
    wanted = set(FORMS if names is None else names) - left_out.keys()
    wanted |= {other for name in wanted for other in FORMS[name].brings}
    if subject.weights is not None:
        wanted.add(CARD.name)
    return [
        form for form in FORMS.values() if form.name in wanted and (subject.weights is not None or not form.trained)
    ], left_out


def _earlier(before: Files, own: str | None, written: set[str], stem: str) -> tuple[Files, list[str]]:
    """What is to stay of the files of an earlier export under this name, and which of them are another network's."""
    others = {
        form.name: [name for name in form.names(stem) if name in before.sha256 and name not in written]
        for form in FORMS.values()
    }
    names = [name for some in others.values() for name in some]
    if own is None or before.network is None:
        return Files(), []
    if own != before.network:
        return Files(), names
    forms = {form: facts for form, facts in before.forms.items() if others.get(form)}
    return Files({name: before.sha256[name] for name in names}, forms), []


def _write(form: Form, subject: Subject, drafts: Sequence[Path], files: Files) -> Mapping[str, Any]:
    try:
        form.write(subject, drafts, files)
    except RuntimeError as error:
        raise RuntimeError(f"export: the {form.name} form cannot be made: {error}") from error
    try:
        return form.verify(subject, drafts)
    except Exception as error:
        raise RuntimeError(f"export: the {form.name} form, read back, is not the network ({error})") from error


def _with(files: Files, form: Form, stem: str, drafts: Sequence[Path], facts: Mapping[str, Any]) -> Files:
    names = form.names(stem)
    digests = {name: digest(draft) for name, draft in zip(names, drafts, strict=True)}
    told = {form.name: {"file": names[0]} | dict(facts)} if facts else {}
    return Files({**files.sha256, **digests}, {**files.forms, **told}, files.network)
