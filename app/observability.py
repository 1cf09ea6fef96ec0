"""Logs, metrics, traces of a process: constant event names and fields; an exporter where no API runs.

Reads   log level, metrics address, the collector of traces
Writes  standard error; one HTTP port for Prometheus
"""

from __future__ import annotations

import atexit
import json
import logging
import re
from datetime import UTC, datetime
from typing import Literal

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from pydantic import Field

from adapters import tracing
from adapters.process_memory import show_own_memory
from adapters.tracing import TracingSettings
from schemas.events import Frozen

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_EVENT = re.compile(r"[a-z]+(?:_[a-z0-9]+)+(?![^\s:])")
_FIELD = re.compile(r"(?:(\w+)=)?%(?:\.\d+)?[sdrfg]")


class LogSettings(Frozen):
    """How much is said, and how: lines for people, or one JSON object a line."""

    level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    format: Literal["text", "json"] = "text"


class MetricsSettings(Frozen):
    """Where a process exports metrics, without a key. None: nowhere; the service has them at /metrics too."""

    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65_535)


class JsonLines(logging.Formatter):
    """Event, fields and message of each record as one JSON object.

    The event is the constant name that a message of ours begins with, null for other people's; a field is a
    `name=%s` of the message with its value.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        template = record.msg if isinstance(record.msg, str) else ""
        event = _EVENT.match(template)
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "event": None if event is None else event[0],
            "message": record.getMessage(),
        }
        if event is not None and isinstance(record.args, tuple):
            for found, value in zip(_FIELD.finditer(template), record.args, strict=False):
                if found[1]:
                    line.setdefault(found[1], value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(settings: LogSettings) -> None:
    """Send everything to standard error; other people's chatter only from WARNING on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if settings.format == "json" else logging.Formatter(_FORMAT))
    logging.basicConfig(level=settings.level, handlers=[handler])
    for name in ("httpx", "httpcore", "uvicorn.access", "urllib3", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)


def start_tracing(settings: TracingSettings, *, process: str) -> None:
    """Trace in this process if a collector is named; what is left is sent when it ends.

    Raises Halt when OpenTelemetry's SDK is not installed.
    """
    tracing.start(settings, process=process)
    atexit.register(tracing.stop)


def export_metrics(
    settings: MetricsSettings, *, process: str, registry: CollectorRegistry = REGISTRY
) -> None:
    """Show this process's memory under its name, and serve Prometheus metrics if a port is set."""
    show_own_memory(process)
    if settings.port is not None:
        start_http_server(settings.port, addr=settings.host, registry=registry)
