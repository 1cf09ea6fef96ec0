"""How a demonstration begins: a quiet console, and a scratch folder without what a run before has left.

Reads   nothing
Writes  removes folders of the scratch folder
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from app.observability import LogSettings, configure_logging

#: What the embedded stack keeps in its data folder.
STACK_FOLDERS = ("broker", "redis", "index")


def begin(data_dir: Path, folders: Iterable[str]) -> tuple[Console, LogSettings]:
    """A console to print on, and the settings by which this process and its children log: errors alone."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 110
    quiet = LogSettings(level="ERROR")
    configure_logging(quiet)
    logging.getLogger("adapters.kafka").setLevel(logging.CRITICAL)
    for name in folders:
        shutil.rmtree(data_dir / name, ignore_errors=True)
    return console, quiet
