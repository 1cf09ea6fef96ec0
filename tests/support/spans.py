"""Spans of this process, collected by the SDK's in-memory exporter: no collector runs.

Reads   nothing
Writes  nothing
"""

from __future__ import annotations

import time

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from adapters import tracing
from adapters.tracing import TracingSettings

#: Nothing listens there.
ON = TracingSettings(endpoint="http://127.0.0.1:1/v1/traces")


class Spans:
    """What has been traced since tracing was switched on."""

    def __init__(self, settings: TracingSettings = ON) -> None:
        self._exporter = InMemorySpanExporter()
        tracing.start(settings, process="test", exporter=self._exporter)

    def all(self) -> list[ReadableSpan]:
        """Every ended span, in the order of their beginnings."""
        provider = tracing.provider()
        assert isinstance(provider, TracerProvider)
        provider.force_flush()
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def wait_for(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """Every span, once so many of that name have ended."""
        deadline = time.monotonic() + 30.0
        while sum(span.name == name for span in self.all()) < count:
            assert time.monotonic() < deadline, [span.name for span in self.all()]
            time.sleep(0.02)
        return self.all()
