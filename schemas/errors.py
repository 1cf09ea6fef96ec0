"""Exceptions are instructions, and there are three.

PoisonMessage   this record can never be applied: dead-letter it and go on
Transient       a store or the broker is away: pause, back off, try the same work again
Halt            stop now, commit nothing more; a person has to decide
"""

from __future__ import annotations


class PoisonMessage(Exception):
    """A record that can never be applied, whatever is retried. `reason` names the field and the fix."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Transient(Exception):
    """A dependency is down or slow. Never dead-letter because of it: wait, then repeat the same work."""


class Halt(BaseException):
    """Stop the process, uncommitted. A BaseException, so that no handler's `except Exception` eats it."""
