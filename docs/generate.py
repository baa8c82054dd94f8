"""Generate the reference pages of docs/ from the program.

python -m docs.generate            # rewrite docs/commands.md
python -m docs.generate --check    # status 1 and the page's name if it is out of date
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import typer

from search.__main__ import app

DOCS = Path(__file__).parent
COMMANDS = DOCS / "commands.md"

_INTRODUCTION = """\
# Commands

`python -m search VERB ...`, with the environment's Python (`.venv/bin/python`), in the checkout. STUDY is a name under
`studies/`, or the path of a TOML file or of its folder.

Exit status: 0 done; 1 the study could not continue (and why); 2 the input is wrong, with one line that gives rule, value
and remedy; 130 or 143 interrupted, everything kept.

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
    """The help text, with what can be seen of the option beside it: required, repeatable, default, environment variable."""
    notes = ["required"] if parameter.required else []
    if parameter.multiple:
        notes.append("may be repeated")
    default = parameter.default
    if default not in (None, False, []) and not callable(default):
        notes.append(f"default `{default}`")
    if parameter.envvar:
        notes.append(f"environment: `{parameter.envvar}`")
    text = re.sub(r"\s+", " ", parameter.help or "").replace("|", "\\|")
    return f"{text} ({', '.join(notes)})" if notes else text


def main() -> None:
    """Write the pages, or compare them."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true", help="compare only; status 1 where a page is out of date")
    asked = options.parse_args()
    page = commands_page()
    if not asked.check:
        COMMANDS.write_text(page, encoding="utf-8")
    elif COMMANDS.read_text(encoding="utf-8") != page:
        sys.exit(f"{COMMANDS.name} is out of date; run: python -m docs.generate")


if __name__ == "__main__":
    main()
