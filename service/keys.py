"""Keys of the API as settings hold them: a name, scopes, a hash; and how a fresh one is made.

Reads   nothing
Writes  nothing
Never   holds a key itself: a key is 256 random bits, so its SHA-256 needs no salt and cannot be guessed back
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from schemas.events import Frozen

#: What every key begins with, so that people and scanners of repositories recognise one.
KEY_PREFIX = "simstream_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORM = "expected NAME:SCOPE[+SCOPE]:SHA256[:EXPIRES] as `simstream keys new` prints it"


class Scope(StrEnum):
    """What a key may do; none includes another."""

    READ = "read"
    PUBLISH = "publish"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key: who has it, what it may do, the SHA-256 of it in hex, and until when it is good."""

    name: str
    scopes: frozenset[Scope]
    digest: str
    expires_at: datetime | None = None

    def entry(self) -> str:
        """As the setting holds it."""
        scopes = "+".join(scope.value for scope in Scope if scope in self.scopes)
        until = "" if self.expires_at is None else f":{self.expires_at.isoformat()}"
        return f"{self.name}:{scopes}:{self.digest}{until}"


def parsed_key(entry: str) -> ApiKey:
    """The key that an entry of the setting describes.

    A date is its first moment, a time without a zone is UTC. Raises ValueError, which repeats no more of the
    entry than its name and scopes.
    """
    name, _, rest = entry.strip().partition(":")
    scopes, _, rest = rest.partition(":")
    digest, _, expires = rest.partition(":")
    if not _NAME.fullmatch(name) or not _SHA256.fullmatch(digest):
        raise ValueError(_FORM)
    try:
        granted = frozenset(Scope(scope) for scope in scopes.split("+"))
    except ValueError:
        known = ", ".join(scope.value for scope in Scope)
        raise ValueError(f"key {name!r}: its scopes are some of {known}, joined by +; {_FORM}") from None
    return ApiKey(name, granted, digest, expiry(expires) if expires else None)


def split_entries(text: str) -> list[str]:
    """Entries with commas or one a line between them, as settings take lists."""
    return [entry.strip() for entry in re.split(r"[,\n]", text) if entry.strip()]


def parsed_keys(entries: Sequence[str]) -> list[ApiKey]:
    """The keys of a list. Raises ValueError for an entry that is none, and for one key twice."""
    keys = []
    for number, entry in enumerate(entries, start=1):
        try:
            keys.append(parsed_key(entry))
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}") from None
    if len({key.digest for key in keys}) < len(keys):
        raise ValueError("the same key is listed twice: its scopes would be whichever comes first")
    return keys


def expiry(text: str) -> datetime:
    """`2027-01-31` or a time as a moment; UTC where no zone is named. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date or time: write 2027-01-31 or 2027-01-31T12:00:00Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def digest_of(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key(name: str, scopes: frozenset[Scope], expires_at: datetime | None = None) -> tuple[str, ApiKey]:
    """A fresh key, and what to keep of it. Raises ValueError for a name or scopes that cannot be written."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    kept = ApiKey(name, scopes, digest_of(key), expires_at)
    parsed_key(kept.entry())
    return key, kept


class ApiSettings(Frozen):
    """Who may ask. Without keys everybody may: for loopback, or behind a proxy that knows its clients.

    `keys` is a list of NAME:SCOPE[+SCOPE]:SHA256[:EXPIRES]. A key is replaced by listing its successor beside
    it until every client has changed. The rate is each key's own, per process.
    """

    keys: tuple[str, ...] = ()
    #: Instead: a file with one entry a line, read again when it changes (service/keyfile.py).
    keys_file: Path | None = None
    keys_look_seconds: float = Field(default=0.5, gt=0, le=60)
    rate_per_second: float = Field(default=100.0, gt=0)
    #: Requests that a key which was quiet may send at once.
    burst: int = Field(default=200, ge=1)
    #: What commands such as `simstream similar` present to a service that has keys.
    client_key: SecretStr | None = None

    @field_validator("keys")
    @classmethod
    def _well_formed(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        parsed_keys(entries)
        return entries

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if self.keys and self.keys_file is not None:
            raise ValueError("SIMSTREAM_API__KEYS and SIMSTREAM_API__KEYS_FILE are both set: keep one")
        return self

    def parsed(self) -> list[ApiKey]:
        """The keys that are listed here; those of the file are read by service/keyfile.py."""
        return parsed_keys(self.keys)

    def client_headers(self) -> dict[str, str]:
        """What a command sends along to say who it is."""
        if self.client_key is None:
            return {}
        return {"Authorization": f"Bearer {self.client_key.get_secret_value()}"}
