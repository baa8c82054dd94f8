"""Exports a network in every format that applies; all files are verified before any is replaced.

Where a format fails, the others are written all the same. Keras is imported only for trained weights, so that an untrained
reference is exported without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from search.data.dataset import Dataset
from search.data.preprocessing import RAW, Pixels
from search.errors import StudyStopped, UserError, nearest
from search.export.card import Files, file_digest, files_of, network_digest
from search.export.formats import ADD, CARD, INT8, KERAS, ONNX, PY, TFLITE, C, Format
from search.export.subject import OPSET, Subject
from search.files import draft_of, remove_abandoned_drafts
from search.networks.architecture import Architecture

# In the order in which they are written and replaced: the card, which lists all others, last.
FORMATS = {format.name: format for format in (KERAS, PY, ADD, TFLITE, INT8, C, ONNX, CARD)}
QUICK = ("py", "json", "keras")  # formats that take no noticeable time


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    paths: Mapping[str, tuple[Path, ...]]  # files written, by format
    facts: Mapping[str, Mapping[str, Any]]  # of each format, as the card has them
    left_out: Mapping[str, str]  # formats that do not apply, if all were asked for, with the reason
    failed: Mapping[str, str]  # formats that could not be written, with the reason
    removed: tuple[Path, ...]  # files of another network that an earlier export had left under these names

    def require_all(self) -> None:
        """Raise if a format failed.

        Raises:
            StudyStopped: names the first of them and the reason. Another attempt would fail in the same way.
        """
        for name, reason in self.failed.items():
            raise StudyStopped(
                f"export: {name}: {reason}; all trials are stored, and the verb export writes the other formats"
            )


class _FormatFailed(Exception):
    """A format cannot be written, or does not verify; the message is the reason in one line."""


def export(
    architecture: Architecture,
    folder: Path,
    *,
    weights: Sequence[npt.NDArray[Any]] | None,
    facts: Mapping[str, Any],
    pixels: Pixels,
    recipe: Mapping[str, Any] | None,
    formats: Sequence[str] | None = None,
    stem: str = "best_model",
    heading: Sequence[str] = (),
    images: Callable[[], Dataset] | None = None,
    on_format: Callable[[Format], None] = lambda format: None,
    is_raw: bool = False,
    opset: int = OPSET,
) -> Exported:
    """Export a network into a folder.

    The card comes with every format of a trained network. It lists all files of this name that hold the network, those of
    an earlier export included; files that hold another network are removed. If no format but the card succeeds, nothing is
    replaced.

    Args:
        weights: in the order of `get_weights()`; None for a network that has not been trained.
        facts: more entries of the card (scores, seeds, data), plain JSON values.
        recipe: of the training; its initialiser goes into the source.
        formats: names out of FORMATS; None takes all that apply.
        heading: lines for the docstring of a source.
        images: reads the training and validation images, for the formats that are calibrated or measured.
        on_format: called before each format is written.
        is_raw: the exported network takes pixels from 0 to 255 and prepares them itself; the stem then ends in "_raw".
        opset: version of the operators in the ONNX file.

    Raises:
        UserError: a format is unknown or does not apply, the weights are another network's, or the folder cannot be written.
    """
    if not architecture.name.isascii():  # a file name that is not UTF-8 has lone surrogates, which JSON does not admit
        architecture = replace(architecture, name=architecture.name.encode(errors="replace").decode())
    rescaled = pixels if is_raw else None
    if is_raw:
        pixels, stem = RAW, f"{stem}_raw"
    subject = Subject(architecture, weights, pixels, recipe, facts, heading, stem, images, rescaled, opset)
    chosen, left_out = _choose(subject, formats)
    if weights is not None and chosen != [CARD]:
        _ = subject.model  # raises where the weights are another network's
    digest = None if weights is None else network_digest(architecture, weights)
    earlier = files_of(folder / f"{stem}.json")
    files = earlier if digest is not None and earlier.network == digest else Files(network=digest)
    paths, failed = dict[str, tuple[Path, ...]](), dict[str, str]()
    drafts, complete = list[Path](), dict[Path, Path]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _all_names(stem):
            remove_abandoned_drafts(folder / name)
        for format in chosen:
            if format is CARD and failed and not paths:
                break
            on_format(format)
            targets = tuple(folder / name for name in format.names(stem))
            parts = [draft_of(target) for target in targets]
            drafts += parts
            try:
                format_facts = _write(format, subject, parts, files, failed)
            except _FormatFailed as error:
                failed[format.name] = str(error)
                if format is CARD:  # files without their card would be another export's to a reader
                    paths.clear()
                    complete.clear()
                continue
            if format is not CARD:
                files = _add(files, format, stem, parts, format_facts)
            paths[format.name] = targets
            complete |= zip(targets, parts, strict=True)
        for target, part in complete.items():
            part.replace(target)
        removed = _remove_others(folder, earlier, digest, stem, complete) if complete else ()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: the export cannot be written ({reason}); pass another folder") from error
    finally:
        for part in drafts:
            part.unlink(missing_ok=True)
    return Exported(paths, files.forms, left_out, failed, removed)


def check_formats(names: Sequence[str] | None) -> None:
    """Raise for an unknown format, before anything is loaded.

    Raises:
        UserError: a name is not in FORMATS.
    """
    for name in names or ():
        if name not in FORMATS:
            raise UserError(f"--form {name}: no such format, {nearest(name, FORMATS)}")


def _choose(subject: Subject, names: Sequence[str] | None) -> tuple[list[Format], dict[str, str]]:
    """The formats to write, in order, and the reasons why others are left out."""
    untrained = f"{subject.architecture.name or 'the network'} has not been trained"
    source_formats = [format.name for format in FORMATS.values() if not format.trained]
    left_out = dict[str, str]()
    check_formats(names)
    for name in FORMATS if names is None else names:
        format = FORMATS[name]
        if format.trained and subject.weights is None:
            if names is not None:
                raise UserError(f"{untrained}; --form {', '.join(source_formats[:-1])} or {source_formats[-1]}")
        elif reason := format.missing(subject):
            if names is not None:
                raise UserError(f"--form {name}: {reason}")
            left_out[name] = reason
    wanted = set(FORMATS if names is None else names) - left_out.keys()
    wanted |= {required for name in wanted for required in FORMATS[name].requires}
    if subject.weights is None:
        wanted = {name for name in wanted if not FORMATS[name].trained}
    else:
        wanted.add(CARD.name)
    return [format for format in FORMATS.values() if format.name in wanted], left_out


def _write(
    format: Format, subject: Subject, parts: Sequence[Path], files: Files, failed: Mapping[str, str]
) -> Mapping[str, Any]:
    """Write the files of a format and read them back; facts for the card.

    Raises:
        _FormatFailed: it cannot be written, or holds another network.
        OSError: the folder cannot be written.
    """
    for required in format.requires:
        if required in failed:
            raise _FormatFailed(f"needs {required}, which failed")
    try:
        format.write(subject, parts, files)
    except OSError:
        raise
    except Exception as error:
        raise _FormatFailed(f"cannot be written ({_reason(error)})") from error
    try:
        return format.verify(subject, parts)
    except Exception as error:
        raise _FormatFailed(f"read back, it is not the network ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    reason = " ".join(str(error).split()) or "no reason given"
    return reason if isinstance(error, RuntimeError | ValueError | UserError) else f"{type(error).__name__}: {reason}"


def _add(files: Files, format: Format, stem: str, parts: Sequence[Path], facts: Mapping[str, Any]) -> Files:
    """The files with those of one more format."""
    names = format.names(stem)
    digests = {name: file_digest(part) for name, part in zip(names, parts, strict=True)}
    forms = {name: entry for name, entry in files.forms.items() if name != format.name}
    if facts:
        forms[format.name] = {"file": names[0]} | dict(facts)
    return replace(files, sha256={**files.sha256, **digests}, forms=forms)


def _remove_others(
    folder: Path, earlier: Files, digest: str | None, stem: str, complete: Mapping[Path, Path]
) -> tuple[Path, ...]:
    """Remove the unchanged files that an earlier export left of another network and that were not replaced."""
    if digest is None or earlier.network in (None, digest):
        return ()
    others = tuple(folder / name for name in _all_names(stem) if name in earlier.sha256 and folder / name not in complete)
    for path in others:
        path.unlink(missing_ok=True)
    return others


def _all_names(stem: str) -> list[str]:
    return [name for format in FORMATS.values() for name in format.names(stem)]
