"""`simstream keys new`: a fresh key of the API, shown once, and the entry that settings keep of it.

Reads   nothing
Writes  standard output
Never   stores the key: whoever loses it makes another
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from service.keys import Scope, expiry, new_key

keys = typer.Typer(no_args_is_help=True, help="Keys of the API.")


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is; shown in refusals. Letters, digits, . _ -")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option("--scope", help="What it may do; may be given several times. By default: read."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 2027-01-31 (its first moment, UTC), or a time.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Key and entry as a JSON object.")] = False,
) -> None:
    """Make a key. Give the first line to the client, add the second to SIMSTREAM_API__KEYS."""
    key, kept = new_key(
        name, frozenset(scope or [Scope.READ]), expiry(expires) if expires is not None else None
    )
    if as_json:
        print(json.dumps({"key": key, "entry": kept.entry()}))
        return
    print(key)
    print(kept.entry())
    print(
        "The first line is the key: it is shown this once. The second is a line of the file that "
        "SIMSTREAM_API__KEYS_FILE names, which the service reads again when it changes; or it goes into "
        "SIMSTREAM_API__KEYS, and the service is started again.",
        file=sys.stderr,
    )


@keys.callback()
def _about() -> None:
    """Keys of the API."""


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(keys, name="keys")
