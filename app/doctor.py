"""What is wrong with a stack, and what to do about it: the frame, and what is not a store of its own.

Reads   settings, disks, the service's health; the checks of stores are in app/doctor_stores.py
Writes  nothing
Never   stops at the first fault: a store that is away is one finding, and the others are looked at
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal, NamedTuple

import httpx

from app.discovery import service_url
from app.settings import Settings
from consumers.erasures import ErasureSettings
from consumers.interest import SketchSettings
from schemas.errors import Halt, Transient

GIB = 1024**3
#: A clock further off than this is told; revisions may be derived from it.
CLOCK_SECONDS = 2.0
#: A store that says "not now" is asked again for so long.
PATIENCE_SECONDS = 2.0
#: A disk with less than this much and less than this share of it free: a fault, a warning.
DISK_FAULT, DISK_WARNING = (GIB // 2, 0.02), (5 * GIB, 0.1)


class Finding(NamedTuple):
    """Something that is not as it should be. A fault loses or stops something, a warning may yet."""

    check: str
    severity: Literal["fault", "warning"]
    subject: str
    finding: str
    remedy: str


class Report(NamedTuple):
    """What was looked at, in order, and what was found."""

    checked: list[str]
    findings: list[Finding]

    @property
    def exit_code(self) -> int:
        """0 nothing found, 1 a fault, 3 warnings alone. (2 is a wrong call, as everywhere.)"""
        if any(one.severity == "fault" for one in self.findings):
            return 1
        return 3 if self.findings else 0


Check = Callable[[], Iterable[Finding]]


def examine(checks: Mapping[str, tuple[Check, str]], *, patience_seconds: float = PATIENCE_SECONDS) -> Report:
    """Run every check, by name, with what to do when it cannot even be made."""
    findings: list[Finding] = []
    for name, (check, remedy) in checks.items():
        try:
            findings += _patiently(check, patience_seconds)
        except (Transient, Halt, ValueError, OSError) as error:
            findings.append(Finding(name, "fault", name, str(error) or repr(error), remedy))
    return Report(list(checks), findings)


def _patiently(check: Check, seconds: float) -> list[Finding]:
    """What a check finds; made again for a moment while a store says "not now", as after an election."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return list(check())
        except Transient:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def clock(check: str, subject: str, *, ahead_seconds: float, within_seconds: float) -> Iterator[Finding]:
    """A clock that differs from this machine's by more than it may, whatever the answer took."""
    off = abs(ahead_seconds) - within_seconds
    if off > CLOCK_SECONDS:
        direction = "ahead of" if ahead_seconds > 0 else "behind"
        yield Finding(
            check,
            "warning",
            subject,
            f"its clock is {abs(ahead_seconds):.1f} s {direction} this machine's",
            "let both follow a time server: revisions without a number come from clocks, and an event more "
            "than 10 minutes ahead is a dead letter",
        )


def disks(
    settings: Settings,
    data_dir: Path | None,
    *,
    usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage,
) -> Iterator[Finding]:
    """Room on the disks of what this machine keeps: releases, training, archive, the embedded data."""
    folders = {
        "releases": None if "://" in settings.releases.url else settings.releases.url,
        "copies of releases": settings.releases.cache,
        "training runs": settings.training.folder,
        "the archive": settings.archive.folder,
        "data": data_dir,
    }
    seen = set()
    for what, folder in folders.items():
        if folder is None:
            continue
        standing = _existing(Path(folder))
        device = os.stat(standing).st_dev
        if device in seen:
            continue
        seen.add(device)
        total, _, free = usage(standing)
        if any(free < least and free < share * total for least, share in (DISK_FAULT, DISK_WARNING)):
            yield Finding(
                "disk",
                "fault" if free < DISK_FAULT[0] and free < DISK_FAULT[1] * total else "warning",
                str(standing),
                f"{free / GIB:.2f} GiB are free of {total / GIB:.0f} on the disk of {what}",
                "make room: old runs (SIMSTREAM_TRAINING__FOLDER), releases that are not on their way "
                "(`simstream releases prune`), or a larger disk",
            )


def public_keys(settings: Settings) -> Iterator[Finding]:
    """Keys of shoppers' ids that anybody knows, because they stand in the source."""
    hashes = (
        settings.behaviour.sketch.key == SketchSettings().key,
        "SIMSTREAM_BEHAVIOUR__SKETCH__HASH_KEY",
        "shoppers are hashed under the public default key: anybody can tell whether a hash is somebody's, "
        "and choose ids that own every sketch",
        "set it to a secret and rebuild (`simstream rebuild --from-log`): sketches of another key are void",
    )
    erasures = (
        settings.erasures.secret == ErasureSettings().secret,
        "SIMSTREAM_ERASURES__KEY",
        "erasures are named under the public default key: who reads user.erasures can tell who left",
        "set it to a secret before the first erasure; those of another key are not known any more",
    )
    for public, subject, finding, remedy in (hashes, erasures):
        if public:
            yield Finding("keys", "warning", subject, finding, remedy)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def service(
    settings: Settings, data_dir: Path, *, get: Callable[..., httpx.Response] = httpx.get
) -> Iterator[Finding]:
    """Whether the service answers and is ready, and what it misses; its clock."""
    url = service_url(None, settings.service, data_dir)
    asked = time.time()
    try:
        answer = get(f"{url}/health/ready", timeout=10.0)
    except httpx.TransportError as error:
        yield Finding(
            "service",
            "warning",
            url,
            f"it does not answer: {error}",
            "start it with `simstream serve`, or name where it is with SIMSTREAM_SERVICE__URL",
        )
        return
    within = (time.time() - asked) / 2
    body = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    if answer.status_code != 200:
        yield Finding(
            "service",
            "fault",
            url,
            str(body.get("detail") or f"it answers {answer.status_code}"),
            "bring back what it names; it is ready by itself then",
        )
    for missing in body.get("missing", []):
        yield Finding(
            "service",
            "warning",
            f"{url}, {missing.get('store', '')}",
            str(missing.get("message")),
            "bring that store back: the routes that need it answer 503 meanwhile",
        )
    if "date" in answer.headers:
        # To the second, rounded down.
        there = parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5
        ahead = there - asked - within
        yield from clock("service", url, ahead_seconds=ahead, within_seconds=within + 0.5)
