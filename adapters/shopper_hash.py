"""A shopper's name inside the house: a keyed 64-bit hash of the user id.

Keyed, because with a public hash anyone could pick ids that own every sketch, or test whether an id is known.
"""

from __future__ import annotations

import hashlib


def shopper_hash(user_id: str, key: bytes) -> bytes:
    """Eight bytes: BLAKE2b of the user id under `key` (RFC 7693, at most 64 bytes)."""
    return hashlib.blake2b(user_id.encode(), digest_size=8, key=key).digest()
