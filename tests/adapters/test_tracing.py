"""adapters/tracing.py: which trace a record stands in, and what a stage leaves behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from adapters import tracing
from adapters.tracing import TRACE_HEADER, TracingSettings
from schemas.errors import Transient
from tests.support.spans import ON, Spans

PLACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
#: redis-py imports the SDK's metrics by itself where the SDK is installed, FastAPI its interfaces.
ASKED = f"""
import sys, app.cli, app.stack, app.consumer_process
from adapters import tracing

app.cli.command_line()

for endpoint in ("", {ON.endpoint!r}):
    tracing.start(tracing.TracingSettings(endpoint=endpoint), process="x")
    print(sum(name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter", "adapters.tracing_spans"))
        for name in sys.modules))
"""


@pytest.fixture
def spans() -> Iterator[Spans]:
    yield Spans()
    tracing.stop()


def fails(places: list[str | None]) -> None:
    """A stage whose store is away."""
    with tracing.stage("process", places) as given:
        assert [place is not None for place in given] == [place is not None for place in places]
        raise Transient("redis is away")


def test_work_that_fails_is_noted_on_its_spans_and_the_next_try_has_spans_of_its_own(spans: Spans) -> None:
    with pytest.raises(Transient):
        fails([PLACE, None])
    with tracing.stage("process", [PLACE, None]):
        pass
    failed, done = spans.all()
    assert (failed.status.is_ok, failed.status.description) == (False, "Transient")
    assert done.status.is_ok
    assert done.attributes is not None
    assert done.attributes["messaging.batch.message_count"] == 2


def test_a_share_of_zero_begins_nothing_and_says_so_to_whoever_reads_on() -> None:
    spans = Spans(TracingSettings(endpoint=ON.endpoint, share=0.0))
    try:
        headers, answered = tracing.sending("catalog.products", ())
        assert [name for name, _ in headers] == [TRACE_HEADER]
        assert answered is not None
        answered(None)
        assert tracing.carried(headers, begins=True) is None
        with tracing.stage("process", [tracing.NEW]) as places:
            assert list(places) == [None]
        assert spans.all() == []
    finally:
        tracing.stop()


@pytest.mark.parametrize("text", ["", "nonsense", "00-1-2", "00-1-2-xx", f"{PLACE[:-2]}00", "\udcff"])
def test_a_header_that_says_nothing_is_no_trace(spans: Spans, text: str) -> None:
    headers = [(TRACE_HEADER, text.encode("utf-8", "surrogateescape"))]
    assert tracing.carried(headers, begins=True) is None
    assert tracing.carried([(TRACE_HEADER, PLACE.encode())]) == PLACE


def test_off_a_stage_and_a_header_cost_nothing_and_change_nothing() -> None:
    headers = [("simstream-lane", b"live")]
    assert tracing.sending("catalog.products", headers) == (headers, None)
    assert tracing.carried([(TRACE_HEADER, PLACE.encode())], begins=True) is None

    def never() -> Iterator[str]:
        raise AssertionError("nobody looks at the changes while tracing is off")
        yield PLACE

    with tracing.stage("process", never()) as places:
        assert len(places) == 0


def test_what_traces_is_imported_only_where_a_collector_is_named() -> None:
    command = [sys.executable, "-c", ASKED]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    off, on = map(int, said.split())
    assert off == 0
    assert on > 0


def test_an_address_that_no_collector_can_have_is_refused() -> None:
    with pytest.raises(ValidationError, match="4318/v1/traces"):
        TracingSettings(endpoint="collector:4318")


def test_a_collector_gets_the_spans_by_http_under_the_name_of_the_process() -> None:
    taken: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/v1/traces"
        tracing.start(TracingSettings(endpoint=address), process="products")
        with tracing.stage("process catalog.products", [PLACE]):
            pass
        tracing.stop()
        server.shutdown()
    ((path, body),) = taken
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    named = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert named["service.name"] == "simstream products"
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("process catalog.products", PLACE.split("-")[1])
