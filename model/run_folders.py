"""The training folder: which examples lie in it, and when they go. Shoppers' search words are among them.

Reads   `{run}/run.json`, of runs and of searches the names of folders: when they were begun
Writes  `erasures.json`: what was known of user.erasures when examples last went because of one
Never   keeps examples of a run that has ended, or that was begun before somebody asked to be forgotten;
        nor takes a report, a verdict or a release

A run is open until it has a `result.json`. Only an open run with its examples can be gone on with.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger(__name__)

WORDS, ARRAYS = "examples.json", "examples.npz"
RUN, RESULT, REFERENCE = "run.json", "result.json", "reference.json"
_ERASURES = "erasures.json"
#: What is left of a run that is given up.
_STAYS = (RUN, RESULT, "tensorboard")


class NoExamples(ValueError):
    """The examples of a run or search have gone: it cannot be gone on with."""


def begun_at(folder: Path) -> datetime:
    """When a run or search was begun, as its name says; long ago where it does not."""
    with suppress(ValueError):
        return datetime.strptime(folder.name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    return datetime.min.replace(tzinfo=UTC)


def is_open(folder: Path) -> bool:
    """Whether a run has begun in this folder and not ended."""
    return (folder / RUN).is_file() and not (folder / RESULT).exists()


def has_examples(folder: Path) -> bool:
    """Whether they are there, both files of them."""
    return all((folder / name).is_file() for name in (WORDS, ARRAYS))


def drop_examples(folder: Path) -> bool:
    """Remove the examples in this folder; whether there were any."""
    there = [path for path in (folder / WORDS, folder / ARRAYS) if path.exists()]
    for path in there:
        path.unlink(missing_ok=True)
    return bool(there)


def abandon(run: Path, reason: str) -> None:
    """End an open run without a verdict: its examples go, and what it has trained so far."""
    log.warning("run_abandoned folder=%s reason=%s", run, reason)
    (run / RESULT).write_text(json.dumps({"abandoned": reason}))
    for path in run.iterdir():
        if path.name not in _STAYS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def settle(training: Path, *, since: datetime) -> None:
    """What the only trainer does before it begins: abandon open runs that it may not go on with.

    Those are runs begun before `since`, and those whose examples have gone. Besides, examples of ended runs
    go, and what a kill left half written.
    """
    for folder in [*training.glob("*"), *training.glob("searches/*")]:
        if not folder.is_dir():
            continue
        if folder.name.startswith("."):
            shutil.rmtree(folder)
        elif (folder / RESULT).exists():
            drop_examples(folder)
        elif is_open(folder) and not has_examples(folder):
            abandon(folder, "its examples have gone")
        elif is_open(folder) and begun_at(folder) < since:
            abandon(folder, f"it was begun before {since:%Y-%m-%d %H:%M} UTC")


def erasures_known(training: Path) -> str:
    """What was known of erasures when examples last went; another text once somebody else was forgotten."""
    with suppress(FileNotFoundError):
        return (training / _ERASURES).read_text()
    return ""


def forget_examples(training: Path, known: Mapping[int, int]) -> int:
    """Remove every example in the folder, unless that was done when erasures were `known` so far.

    `known` are the next offsets of user.erasures. How many runs and searches that was. A trainer at work
    goes on with what it has in memory, and is not resumed after a kill.
    """
    told = json.dumps(sorted(known.items())) if known else ""
    if not training.is_dir() or erasures_known(training) == told:
        return 0
    found = [*training.glob("*"), *training.glob("searches/*/*")]
    gone = [folder for folder in found if folder.is_dir() and drop_examples(folder)]
    # Afterwards: killed before, it is done once more.
    aside = training / f".{_ERASURES}"
    aside.write_text(told)
    aside.replace(training / _ERASURES)
    if gone:
        log.info("examples_forgotten folder=%s count=%d", training, len(gone))
    return len(gone)
