"""The command `simstream`.

Reads   arguments, settings
Writes  what its commands do; errors as one sentence on standard error

Exit codes: 0 done; 1 stopped by a fault that the sentence names; 2 a wrong call or input; 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from adapters.child import GIL_SWITCH_SECONDS
from app.settings import InvalidSettings
from schemas.errors import Halt, Transient

#: Which module of app/commands has a command, in the order of the help.
COMMANDS = {
    "up": "run",
    "consume": "run",
    "serve": "run",
    "topics": "run",
    "demo": "demo",
    "demo-learn": "demo_learn",
    "doctor": "doctor",
    "capacity": "capacity",
    "publish": "publish",
    "shop": "shop",
    "similar": "query",
    "search": "query",
    "recommend": "query",
    "trending": "query",
    "evaluate": "evaluate",
    "exposure": "exposure",
    "keys": "keys",
    "archive": "learn",
    "train": "learn",
    "tune": "tune",
    "pairs": "pairs",
    "metrics": "metrics",
    "dlq": "operate",
    "reconcile": "operate",
    "forget": "forget",
    "releases": "releases",
    "rebuild": "rebuild",
    "export-state": "rebuild",
    "backup": "backup",
    "restore": "backup",
    "relations": "relations",
    "opinions": "opinions",
    "reports": "reports",
    "rules": "rules",
    "schemas": "schemas",
}
HELP = "Similar items that are never stale: Kafka events in, fresh neighbours out."


def command_line(words: Sequence[str] = ()) -> typer.Typer:
    """The command line, all of it; or what the command that `words` begin with needs.

    Importing every command takes seconds, and most of a consumer's start.
    """
    app = typer.Typer(name="simstream", help=HELP, pretty_exceptions_enable=False, add_completion=False)
    # With a callback a single command is one of a group, and is named on the command line.
    app.callback(no_args_is_help=True, help=HELP)(lambda: None)
    asked = COMMANDS.get(words[0]) if words else None
    for module in dict.fromkeys(COMMANDS.values()) if asked is None else (asked,):
        import_module(f"app.commands.{module}").register(app)
    return app


def main() -> None:
    """Entry point of the distribution."""
    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    try:
        # A command that raises typer.Exit is answered with its code here, not with the exception.
        sys.exit(command_line(sys.argv[1:])(standalone_mode=False) or 0)
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
    except OSError as error:
        _say(_refused(error))
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


def _refused(error: OSError) -> str:
    """What the system refused, and of which file."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{error.filename}: {reason}"


def _say(sentence: str) -> None:
    print(f"simstream: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    main()
