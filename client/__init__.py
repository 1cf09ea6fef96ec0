"""The API's own client, typed, sync and async: `from client import Simstream`.

Needs httpx and schemas/ alone: no torch, no Kafka, nothing of the service.
"""

from client.asynchronous import AsyncSimstream
from client.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from client.retries import Retries
from client.synchronous import Simstream

__all__ = [
    "ApiError",
    "AsyncSimstream",
    "Conflict",
    "Forbidden",
    "Gone",
    "Invalid",
    "NotFound",
    "Retries",
    "Simstream",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]
