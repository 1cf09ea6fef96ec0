"""Logs and metrics of a process: lines with a constant event name and fields; an exporter where no API runs.

Reads   log level, metrics address
Writes  standard error; one HTTP port for Prometheus
"""

from __future__ import annotations

import logging

from prometheus_client import start_http_server
from pydantic import Field

from schemas.events import Frozen

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class LogSettings(Frozen):
    """How much is said."""

    level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")


class MetricsSettings(Frozen):
    """Where a consumer's own process exports metrics; the service has them at /metrics. None: nowhere."""

    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65_535)


def configure_logging(settings: LogSettings) -> None:
    """Send everything to standard error; other people's chatter only from WARNING on."""
    logging.basicConfig(level=settings.level, format=_FORMAT)
    for name in ("httpx", "httpcore", "uvicorn.access", "urllib3", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)


def export_metrics(settings: MetricsSettings) -> None:
    """Serve Prometheus metrics of this process, if a port is set."""
    if settings.port is not None:
        start_http_server(settings.port, addr=settings.host)
