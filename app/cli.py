"""The command `simstream`.

Reads   arguments, settings
Writes  what its commands do; errors as one sentence on standard error

Exit codes: 0 done; 1 stopped by a fault that the sentence names; 2 a wrong call or input; 130 Ctrl-C.
"""

from __future__ import annotations

import sys

import typer

from adapters.child import GIL_SWITCH_SECONDS
from app.commands import (
    backup,
    demo,
    demo_learn,
    doctor,
    evaluate,
    exposure,
    forget,
    keys,
    learn,
    metrics,
    operate,
    opinions,
    publish,
    query,
    rebuild,
    relations,
    releases,
    reports,
    rules,
    run,
    schemas,
    shop,
)
from app.settings import InvalidSettings
from schemas.errors import Halt, Transient

app = typer.Typer(
    name="simstream",
    help="Similar items that are never stale: Kafka events in, fresh neighbours out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for module in (
    run,
    demo,
    demo_learn,
    doctor,
    publish,
    shop,
    query,
    evaluate,
    exposure,
    keys,
    learn,
    metrics,
    operate,
    forget,
    releases,
    rebuild,
    backup,
    relations,
    opinions,
    reports,
    rules,
    schemas,
):
    module.register(app)


def main() -> None:
    """Entry point of the distribution."""
    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    try:
        # A command that raises typer.Exit is answered with its code here, not with the exception.
        sys.exit(app(standalone_mode=False) or 0)
    except typer.TyperException as error:
        # Errors of usage can show themselves, with the command's usage; the others have a message only.
        show = getattr(error, "show", None)
        show() if show is not None else _say(error.format_message())
        sys.exit(error.exit_code)
    except (InvalidSettings, ValueError) as error:
        _say(str(error))
        sys.exit(2)
    except (Halt, Transient) as error:
        _say(str(error))
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


def _say(sentence: str) -> None:
    print(f"simstream: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    main()
