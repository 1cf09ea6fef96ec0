"""Traces: where a change spends its time, from its producer to the index. Off unless a collector is named.

Reads   nothing
Writes  through adapters/tracing_spans.py: spans, to an OpenTelemetry collector, by OTLP over HTTP
Never   imports OpenTelemetry's SDK while it is off; loses or delays a change because a collector is away

A change carries its place in its trace as the W3C header `traceparent`: on Kafka as a record header, inside a
process as that header's text. Every stage is one span per change, the next one's parent, so the trace of a
change can be read alone. https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from schemas.errors import Halt
from schemas.events import Frozen
from schemas.topics import BULK_LANE, LANE_HEADER

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import TracerProvider

    from adapters.tracing_spans import Spans

TRACE_HEADER = "traceparent"
#: Stands for a parent where a trace begins: whether it does is drawn.
NEW = ""
#: The last two digits of a traceparent, where its first bit says that the trace is recorded.
_RECORDED = 0x01

Headers = Sequence[tuple[str, bytes]]
#: Where each change stands in its trace; None for one that is not traced.
Places = Sequence[str | None]
_NOWHERE: AbstractContextManager[Places] = nullcontext(())


class TracingSettings(Frozen):
    """Where spans go (the URL at which a collector takes traces; empty: tracing is off), and for how many.

    `share` is that of the changes and requests which begin a trace here; one that comes with a traceparent
    is recorded if its producer said so.
    """

    endpoint: str = ""
    share: float = Field(default=1.0, ge=0.0, le=1.0)

    @field_validator("endpoint")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("expected a URL such as http://127.0.0.1:4318/v1/traces")
        return value


_spans: Spans | None = None


def start(settings: TracingSettings, *, process: str, exporter: SpanExporter | None = None) -> None:
    """Trace from now on in this process, under its name, if a collector is named.

    `exporter` replaces the one to the collector. Raises Halt when OpenTelemetry's SDK is not installed.
    """
    global _spans
    if not settings.endpoint:
        return
    try:
        from adapters.tracing_spans import open_spans
    except ImportError as error:
        raise Halt(
            f"SIMSTREAM_TRACING__ENDPOINT is set, and {error.name} is not installed: install "
            "its packages (pip install '.[tracing]' in a checkout), or leave the setting empty"
        ) from error
    _spans = open_spans(settings, process=process, exporter=exporter)


def stop() -> None:
    """Send what is left, and trace no more."""
    global _spans
    if _spans is not None:
        ended, _spans = _spans, None
        ended.close()


def on() -> bool:
    """Whether this process traces."""
    return _spans is not None


def provider() -> TracerProvider | None:
    """For libraries that make spans of their own; None while tracing is off."""
    return None if _spans is None else _spans.provider


def carried(headers: Headers, *, begins: bool = False) -> str | None:
    """Where a record stands in its trace; None when it is not traced.

    With `begins`, a record of the live lane that says nothing of a trace may begin one here.
    """
    if _spans is None:
        return None
    lane = None
    for name, value in headers:
        if name == TRACE_HEADER:
            text = value.decode("ascii", "replace")
            return text if is_recorded(text) else None
        if name == LANE_HEADER:
            lane = value
    return NEW if begins and lane != BULK_LANE.encode() else None


def is_recorded(traceparent: str) -> bool:
    """Whether whoever began that trace records it; False for what is no traceparent."""
    parts = traceparent.split("-")
    try:
        return len(parts) >= 4 and bool(int(parts[3], 16) & _RECORDED)
    except ValueError:
        return False


def stage(name: str, parents: Iterable[str | None], *, topic: str = "") -> AbstractContextManager[Places]:
    """A span of that name for every change that is traced, from here to the end of the `with` block.

    `topic` says where the changes were read, for the stage that reads them.

    Gives where each change stands from now on, in the order of `parents`; nothing while tracing is off. An
    exception that leaves the block is noted on every span: the same work then comes again, with new ones.
    """
    return _NOWHERE if _spans is None else _spans.stage(name, list(parents), topic)


def sending(topic: str, headers: Headers) -> tuple[Headers, Callable[[Exception | None], None] | None]:
    """Headers for a record that is about to be sent, and what to call when the broker has answered.

    A record that already stands in a trace goes as it is, and so does one of the bulk lane: an import is not
    traced row by row.
    """
    names = {name: value for name, value in headers}
    if _spans is None or TRACE_HEADER in names or names.get(LANE_HEADER) == BULK_LANE.encode():
        return headers, None
    return _spans.sending(topic, headers)


def in_request() -> bool:
    """Whether this thread, or this task, serves an HTTP request that has a place in a trace."""
    return _spans is not None and _spans.in_request()
