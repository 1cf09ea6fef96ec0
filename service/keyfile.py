"""The keys in force: those of settings, or of the keys file as it last was right, read again when it changes.

Reads   the file that SIMSTREAM_API__KEYS_FILE names: hashes of keys, one entry a line
Writes  the audit log: which names came, changed and went
Never   opens the service: a file without a key, and one that is wrong anywhere, leaves the keys as they were
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from adapters.audit import Audit
from adapters.metrics import API_KEYS_REFUSED, API_KEYS_VERSIONS_TOTAL
from service.access import Keyring
from service.keys import ApiKey, ApiSettings, parsed_keys, split_entries
from service.reloaded import Reloaded

log = logging.getLogger(__name__)


class KeyFile(Reloaded[Sequence[ApiKey]]):
    """Keeps a keyring equal to a file. Without a file the ring keeps what settings list."""

    holds = "keys"

    def __init__(self, settings: ApiSettings, ring: Keyring, *, audit: Audit | None = None) -> None:
        """Reads the file. Raises Halt where it is missing, wrong or without a key."""
        self.ring = ring
        self._audit = audit
        super().__init__(
            settings.keys_file,
            setting="SIMSTREAM_API__KEYS_FILE",
            nothing=settings.parsed(),
            look_seconds=settings.keys_look_seconds,
        )

    def parsed(self, content: bytes) -> Sequence[ApiKey]:
        """The keys of a version. Raises ValueError, which repeats nothing but names and scopes."""
        try:
            keys = parsed_keys(split_entries(content.decode()))
        except UnicodeDecodeError:
            raise ValueError("it is not UTF-8") from None
        if not keys:
            raise ValueError("it lists no key, and without one everybody could ask")
        return keys

    def taken(self, path: Path, before: Sequence[ApiKey]) -> None:
        """The ring has these keys now; what each has left to spend stays."""
        self.ring.replace(self.value)
        API_KEYS_VERSIONS_TOTAL.labels("taken").inc()
        log.info("api_keys_taken file=%s keys=%d", path, len(self.value))
        if self._audit is not None and before:
            self._audit.done("keys.reload", by="service", file=str(path), **_changes(before, self.value))

    def standing(self, refused: str | None, *, new: bool) -> None:
        """Say whether the file is in force."""
        API_KEYS_REFUSED.set(0 if refused is None else 1)
        if new:
            API_KEYS_VERSIONS_TOTAL.labels("refused").inc()
            log.error("api_keys_refused reason=%s", refused)


def _changes(before: Sequence[ApiKey], after: Sequence[ApiKey]) -> dict[str, list[str]]:
    """Names and scopes, never a hash: what is listed now and was not, and the other way round."""
    old, new = {key.digest: key for key in before}, {key.digest: key for key in after}

    def told(keys: dict[str, ApiKey], other: dict[str, ApiKey]) -> list[str]:
        return sorted(_told(key) for digest, key in keys.items() if digest not in other)

    changed = [
        f"{_told(old[digest])} -> {_told(key)}"
        for digest, key in new.items()
        if digest in old and old[digest] != key
    ]
    return {"added": told(new, old), "removed": told(old, new), "changed": sorted(changed)}


def _told(key: ApiKey) -> str:
    scopes = "+".join(sorted(key.scopes))
    until = "" if key.expires_at is None else f" until {key.expires_at.isoformat()}"
    return f"{key.name} ({scopes}){until}"
