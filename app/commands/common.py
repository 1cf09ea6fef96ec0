"""What commands share: where a stack keeps its data, its settings, and what is said beside the output.

Reads   settings; `stack.json` in a data folder
Writes  standard error
Never   writes to standard output, which is for what was asked
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from app.discovery import stack_settings
from app.observability import configure_logging
from app.settings import Settings, load_settings

DataDir = Annotated[Path, typer.Option(help="The data folder of `simstream up --embedded`.")]


def settings_at(data_dir: Path, *, logged: bool = False) -> Settings:
    """The settings, joined with the stack that runs in `data_dir`; `logged` begins to log as they say."""
    settings = stack_settings(load_settings(), data_dir)
    if logged:
        configure_logging(settings.log)
    return settings


def say(sentence: str) -> None:
    """A word to whoever watches."""
    print(sentence, file=sys.stderr, flush=True)
