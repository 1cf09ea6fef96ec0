"""Exceptions are instructions, and there are three.

PoisonMessage   this record can never be applied: dead-letter it and go on
Transient       a store or the broker is away: pause, back off, try the same work again
Halt            stop now, commit nothing more; a person has to decide
"""

from __future__ import annotations

from typing import Literal

#: Why a record is poison, as a label: it does not parse; null where that says nothing; keyed wrongly; a clock
#: too far ahead.
PoisonKind = Literal["invalid", "null", "key", "clock"]
POISON_KINDS: tuple[PoisonKind, ...] = ("invalid", "null", "key", "clock")


class PoisonMessage(Exception):
    """A record that can never be applied, whatever is retried. `reason` names the field and the fix."""

    def __init__(self, reason: str, kind: PoisonKind = "invalid") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


class Transient(Exception):
    """A dependency is down or slow. Never dead-letter because of it: wait, then repeat the same work."""


class Halt(BaseException):
    """Stop the process, uncommitted. A BaseException, so that no handler's `except Exception` eats it."""
