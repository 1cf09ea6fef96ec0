"""`simstream rules check`: whether a rules file would be taken, before it is deployed.

Reads   the file
Writes  standard output: how many rules of each kind it has
Never   asks a running service
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.publish import fail
from service.rulebook import parsed
from service.rules import CompiledRules

rules = typer.Typer(no_args_is_help=True, help="The shop's rules file (docs/rules.md).")


@rules.command()
def check(file: Annotated[Path, typer.Argument(help="The YAML file.")]) -> None:
    """Say how many rules of each kind the file has, or what is wrong with it (exit code 2)."""
    try:
        content = file.read_bytes()
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}")
    found = CompiledRules(parsed(content)).counts()
    print(", ".join(f"{number} {name}" for name, number in found.items() if number) or "no rules")


@rules.callback()
def _about() -> None:
    """The shop's rules file."""


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(rules, name="rules")
