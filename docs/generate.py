"""Generate the reference parts of docs/ from the program.

    python -m docs.generate            # rewrite docs/commands.md and the tables of keys in the other pages
    python -m docs.generate --check    # status 1 and the names of the pages that are out of date

A table of keys stands between `<!-- keys: space pyramid -->` (the dotted table of a study file, and its kind; `top` for the
keys outside every table; without a kind all kinds) and `<!-- end of keys -->`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from search.cli.commands import app
from search.study.reference import Key, keys

DOCS = Path(__file__).parent
COMMANDS = DOCS / "commands.md"
_KEYS = re.compile(r"(<!-- keys: (\S+)(?: (\S+))? -->\n).*?(<!-- end of keys -->)", re.DOTALL)

_INTRODUCTION = """\
# Commands

`python -m search VERB ...`, with the environment's Python (`.venv/bin/python`), in the checkout. STUDY is a name under
`studies/`, or the path of a TOML file or of its folder.

Exit status: 0 done; 1 the study could not continue (and why); 2 the input is wrong, with one line that gives rule, value
and remedy; 129, 130 or 143 interrupted by SIGHUP, Ctrl-C or SIGTERM, everything kept.

<!-- generated from the command line by python -m docs.generate; edit the help there -->
"""
_TYPES = {"str": "TEXT", "int": "N", "float": "NUMBER", "Path": "PATH"}


def commands_page() -> str:
    """The page of all verbs with their arguments and options, in the order of the command line."""
    group: Any = typer.main.get_command(app)
    verbs = {name: command for name, command in group.commands.items() if not command.hidden}
    return "\n".join([_INTRODUCTION, *(_verb(name, command) for name, command in verbs.items())])


def _verb(name: str, command: Any) -> str:
    usage = [name, *(_placeholder(parameter) for parameter in _arguments(command))]
    options = [parameter for parameter in command.params if parameter not in _arguments(command)]
    lines = [
        f"## {name}",
        "",
        " ".join((command.help or "").split()),
        "",
        "```",
        f"python -m search {' '.join(usage)}",
        "```",
        "",
    ]
    lines += ["| argument or option | meaning |", "|---|---|"]
    lines += [f"| `{_signature(parameter)}` | {_meaning(parameter)} |" for parameter in (*_arguments(command), *options)]
    return "\n".join((*lines, ""))


def _arguments(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "argument"]


def _placeholder(argument: Any) -> str:
    name = argument.name.upper()
    return name if argument.required else f"[{name}]"


def _signature(parameter: Any) -> str:
    """`STUDY`, `--trials N` or `--json`."""
    if parameter.param_type_name == "argument":
        return _placeholder(parameter)
    flag = parameter.opts[0]
    return flag if parameter.is_flag else f"{flag} {_value(parameter)}"


def _value(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    return _TYPES.get(getattr(annotation, "__name__", ""), "VALUE")


def _meaning(parameter: Any) -> str:
    """Help text of a parameter, with notes: required, default, environment variable."""
    notes = ["required"] if parameter.required else []
    default = parameter.default
    if default not in (None, False, []) and not callable(default):
        notes.append(f"default `{default}`")
    if parameter.envvar:
        notes.append(f"environment: `{parameter.envvar}`")
    text = re.sub(r"\s+", " ", parameter.help or "").replace("|", "\\|")
    return f"{text} ({', '.join(notes)})" if notes else text


def with_keys(text: str) -> str:
    """A page with its tables of keys written anew.

    Raises:
        KeyError: a study file has no such table.
    """
    known = list(keys())

    def written(match: re.Match[str]) -> str:
        begin, table, kind, end = match.groups()
        rows = [key for key in known if key.table == ("" if table == "top" else table) and kind in (None, key.kind)]
        if not rows:
            raise KeyError(match[0])
        return f"{begin}{key_table(rows)}\n{end}"

    return _KEYS.sub(written, text)


def key_table(rows: Iterable[Key]) -> str:
    """The rows of a table of keys; a column names the kinds where there are several."""
    rows = list(rows)
    has_kinds = len({key.kind for key in rows}) > 1
    is_searchable = any(key.is_searchable for key in rows)
    head = [
        *(["kind"] if has_kinds else []),
        "key",
        "values",
        *(["searchable"] if is_searchable else []),
        "default",
        "meaning",
    ]
    lines = [head, ["---"] * len(head)]
    for key in rows:
        if key.name == "kind" and not has_kinds:
            continue  # the heading has it
        default = "required" if key.is_required else f"`{key.default}`" if key.default not in ("", "[]") else "none"
        cells = [f"`{key.kind}`"] if has_kinds else []
        cells += [f"`{key.name}`", key.values.replace("|", "\\|")]
        cells += ["yes" if key.is_searchable else ""] if is_searchable else []
        lines.append([*cells, default, key.description.replace("|", "\\|")])
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)


def generated() -> dict[Path, str]:
    """Each page that has generated parts, as it must be."""
    pages = {path: with_keys(path.read_text(encoding="utf-8")) for path in sorted(DOCS.glob("*.md")) if path != COMMANDS}
    return {COMMANDS: commands_page()} | pages


def main() -> None:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only; status 1 where a page is out of date")
    options = parser.parse_args()
    outdated = {path: page for path, page in generated().items() if path.read_text(encoding="utf-8") != page}
    for path, page in outdated.items():
        if not options.check:
            path.write_text(page, encoding="utf-8")
    if options.check and outdated:
        sys.exit(f"out of date: {', '.join(path.name for path in outdated)}; run: python -m docs.generate")


if __name__ == "__main__":
    main()
