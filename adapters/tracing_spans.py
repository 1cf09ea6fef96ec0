"""Spans, as OpenTelemetry makes and sends them. Imported by adapters/tracing.py once tracing is on.

Reads   OTEL_EXPORTER_OTLP_HEADERS and its like, which the exporter takes from the environment itself
Writes  spans, in the background, to the collector; those that do not fit its queue are dropped
Never   puts a shopper's id, a query or a key on a span: addresses of requests are left out, routes stay
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from adapters.tracing import TRACE_HEADER, Headers, Places, TracingSettings

#: What a request's address says beyond its route: ids of shoppers and items, words that were searched for.
_PRIVATE = frozenset({"url.path", "url.query", "url.full", "client.address", "user_agent.original"})
_LEFT_OUT = "(left out)"
_W3C = TraceContextTextMapPropagator()


class Routes(SpanProcessor):
    """Leaves out of every span what names a shopper or a query."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span begins: its attributes are those of whoever made it."""
        if span.kind is SpanKind.SERVER:
            for name in _PRIVATE.intersection(span.attributes or ()):
                span.set_attribute(name, _LEFT_OUT)

    def on_end(self, span: ReadableSpan) -> None:
        """Nothing: it is read-only by now."""


class Spans:
    """The spans of one process."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("simstream")

    def close(self) -> None:
        """Send what is left."""
        self.provider.shutdown()

    @contextmanager
    def stage(self, name: str, parents: Sequence[str | None], topic: str) -> Iterator[Places]:
        """adapters.tracing.stage"""
        attributes: dict[str, str | int] = {"messaging.batch.message_count": len(parents)}
        if topic:
            attributes |= {"messaging.system": "kafka", "messaging.destination.name": topic}
        kind = SpanKind.CONSUMER if topic else SpanKind.INTERNAL
        spans = [
            None
            if parent is None
            else self._tracer.start_span(name, context=_context(parent), kind=kind, attributes=attributes)
            for parent in parents
        ]
        try:
            yield [_place(span) for span in spans]
        except BaseException as error:
            for span in filter(None, spans):
                span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            for span in filter(None, spans):
                span.end()

    def sending(self, topic: str, headers: Headers) -> tuple[Headers, Callable[[Exception | None], None]]:
        """adapters.tracing.sending, for a record that has no place in a trace yet."""
        span = self._tracer.start_span(
            f"send {topic}",
            kind=SpanKind.PRODUCER,
            attributes={"messaging.system": "kafka", "messaging.destination.name": topic},
        )

        def answered(error: Exception | None) -> None:
            if error is not None:
                span.set_status(StatusCode.ERROR, type(error).__name__)
            span.end()

        # Also where it is not recorded: that says so, and nobody behind draws again.
        return [*headers, (TRACE_HEADER, _traceparent(span).encode())], answered

    def in_request(self) -> bool:
        """adapters.tracing.in_request"""
        return trace.get_current_span().get_span_context().is_valid


def _context(parent: str) -> Context:
    """What a span of that parent is made in; without one, a trace begins."""
    return _W3C.extract({TRACE_HEADER: parent}, context=Context()) if parent else Context()


def _traceparent(span: trace.Span) -> str:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context=trace.set_span_in_context(span, Context()))
    return carrier[TRACE_HEADER]


def _place(span: trace.Span | None) -> str | None:
    return _traceparent(span) if span is not None and span.is_recording() else None


def open_spans(settings: TracingSettings, *, process: str, exporter: SpanExporter | None = None) -> Spans:
    """Spans of this process, to the collector of `settings` unless another `exporter` is given."""
    opened = TracerProvider(
        resource=Resource.create({"service.namespace": "simstream", "service.name": f"simstream {process}"}),
        sampler=ParentBased(TraceIdRatioBased(settings.share)),
    )
    opened.add_span_processor(Routes())
    opened.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=settings.endpoint)))
    return Spans(opened)
