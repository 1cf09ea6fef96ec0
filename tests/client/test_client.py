"""client/: both clients against the real service on a socket, and against answers of a test."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from adapters.index_edge import EdgeIndex
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from app.local import LocalRedis
from client import (
    ApiError,
    AsyncSimstream,
    Forbidden,
    Invalid,
    NotFound,
    Retries,
    Simstream,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from schemas.api import Filter, SearchRequest, Seed, SimilarRequest
from schemas.api_watch import UpdatesView
from schemas.events import ProductDeleted, ProductUpserted, ReviewRemoved, UserEvent
from schemas.reports import ReportRequest
from service import examples
from service.access import Keyring
from service.keys import ApiSettings, Scope, new_key
from service.settings import ServiceSettings
from tests.service.shop import NOW, Shop
from tests.service.test_publish import Broker, sink_of
from tests.support.fake_behaviour import FakeBehaviour, visits
from tests.support.serving import serving

ROOT = Path(__file__).parent.parent.parent
KEY, KEPT = new_key("shop", frozenset({Scope.READ, Scope.PUBLISH}))
READER, KEPT_READER = new_key("reader", frozenset({Scope.READ}))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, redis_server: LocalRedis) -> Iterator[str]:
    """A service with keys, over a small shop, a broker's double behind it."""
    store = connect(RedisSettings(url=redis_server.url))
    index = EdgeIndex(tmp_path_factory.mktemp("client"))
    shop = Shop(index=index, store=ItemStore(client=store, namespace="client-tests."))
    keyring = Keyring(ApiSettings(keys=(KEPT.entry(), KEPT_READER.entry())))
    behaviour = FakeBehaviour(
        shopped={"a/b": visits("s1", "s3")}, windows={"24h": {"s1": 5.0, "c1": 3.0, "s5": 1.0}}
    )
    app = shop.app(keyring=keyring, sink=sink_of(Broker()), behaviour=behaviour)
    with serving(app) as address:
        yield address
    index.close()
    store.close()


class Blocking:
    """The async client, its methods awaited: one test for both."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncSimstream(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._runner.run(method(*args, **kwargs))

    def updates(self) -> list[UpdatesView]:
        """The stream to its end."""

        async def collected() -> list[UpdatesView]:
            return [message async for message in self._client.updates()]

        return self._runner.run(collected())

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[Simstream, Blocking], ids=["sync", "async"])
def made(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a client."""
    kind: Callable[..., Any] = request.param
    return kind


def event(number: int) -> UserEvent:
    return UserEvent(event_id=f"e{number}", type="view", user_id="u", product_id="s1", occurred_at=NOW)


def test_every_route_is_a_typed_call(made: Callable[..., Any], url: str) -> None:
    with made(url, key=KEY) as client:
        assert client.item("s1").title.startswith("Norda")
        assert client.item("odd/ü<b>&/similar").item_id == "odd/ü<b>&/similar"
        assert len(client.similar("s1", limit=3).items) == 3
        assert client.price("s1").price == "100"
        assert client.price("odd/ü<b>&/similar").price == "60"
        wanted = SimilarRequest(
            seeds=[Seed(item_id="s1"), Seed(item_id="c1", weight=-0.5)], filter=Filter(in_stock=True), limit=2
        )
        answer = client.similar(wanted)
        assert len(answer.items) == 2
        batch = client.similar_batch([wanted, SimilarRequest(seeds=[Seed(item_id="nowhere")])])
        assert batch.answers[0].answer.items == answer.items
        assert batch.answers[1].problem.status == 404
        assert client.search("espresso", limit=1).items[0].item_id in {"c1", "c2"}
        assert client.search(SearchRequest(text="espresso", filter=Filter(brand=["Nobody"]))).items == []
        found = client.recommendations(
            "a/b", limit=2, weights={"content": 1.0, "lexical": 0.5}, filter=Filter(category=["Shoes"])
        )
        assert len(found.items) == 2
        page = client.trending("24h", limit=2)
        assert [hit.item_id for hit in page.items] == ["s1", "c1"]
        rest = client.trending("24h", limit=2, offset=page.next_offset)
        assert ([hit.item_id for hit in rest.items], rest.next_offset) == (["s5"], None)
        assert client.release().model == "fake"
        assert client.releases().releases[0].live
        assert client.pipeline().encoder_calls == 0
        assert {one.item_id for one in client.recent("a/b").items} == {"s1", "s3"}
        assert {place.item_id for place in client.map(["s1", "c1"]).places} == {"s1", "c1"}
        assert client.publish_events([event(number) for number in range(1_200)]) == 1_200
        assert client.publish_products([ProductDeleted(product_id="p", occurred_at=NOW)]) == 1
        assert client.publish_reviews([ReviewRemoved(review_id="r", product_id="p", occurred_at=NOW)]) == 1
        assert client.publish_events([]) == 0


def test_each_refusal_is_an_exception_of_its_own(made: Callable[..., Any], url: str) -> None:
    with made(url) as client, pytest.raises(Unauthorized):
        client.item("s1")
    with made(url, key=READER) as client:
        with pytest.raises(Forbidden, match="publish"):
            client.publish_events([event(1)])
        with pytest.raises(Forbidden, match="admin"):
            client.similar(SimilarRequest(seeds=[Seed(item_id="s1")], release_id="r1"))
        with pytest.raises(NotFound, match="nowhere"):
            client.item("nowhere")
        with pytest.raises(Invalid) as caught:
            client.similar("s1", limit=0)
        assert list(caught.value.fields) == ["limit"]
        for wanted in ({"price": {"currency": "EUR"}}, {"opinions": ["noise: good"]}):
            with pytest.raises(ValueError, match=f"filtered by {next(iter(wanted))}"):
                client.recommendations("u", filter=Filter.model_validate(wanted))


class Scripted(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers in turn; an exception is raised."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.seen: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The next answer."""
        self.seen.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        # A copy: a client binds the answer that it gets to itself.
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The same."""
        return self.handle_request(request)


def refusal(status: int, retry_after: str | None = None, **errors: str) -> httpx.Response:
    body = {"title": "T", "status": status, "detail": "why", "errors": [errors] if errors else []}
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return httpx.Response(status, headers=headers, content=json.dumps(body).encode())


PUBLISHED = httpx.Response(202, content=b'{"acknowledged": 1}')


def slept(made: Callable[..., Any], transport: Scripted, **retries: Any) -> tuple[Any, list[float]]:
    """A client that does not really wait, and what it would have waited."""
    waits: list[float] = []

    async def later(seconds: float) -> None:
        waits.append(seconds)

    client = made(
        "http://test",
        key=KEY,
        retries=Retries(draw=lambda: 0.5, **retries),
        sleep=waits.append if made is Simstream else later,
        transport=transport,
    )
    return client, waits


def test_what_passes_is_tried_again_after_what_the_service_asks(made: Callable[..., Any]) -> None:
    transport = Scripted(refusal(429, "3"), refusal(503), httpx.ConnectError("refused"), PUBLISHED)
    client, waits = slept(made, transport)
    with client:
        assert client.publish_events([event(1)]) == 1
    assert waits == [pytest.approx(3.3), pytest.approx(0.3), pytest.approx(0.6)]
    assert len({request.read() for request in transport.seen}) == 1
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in transport.seen)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal(429, "1"), TooManyRequests),
        (refusal(503, "1", store="index"), Unavailable),
        (httpx.ReadTimeout("slow"), Unreachable),
    ],
)
def test_after_the_last_attempt_the_error_is_raised(
    made: Callable[..., Any], answer: Any, error: type[Exception]
) -> None:
    client, waits = slept(made, Scripted(*[answer] * 3), attempts=3)
    with client, pytest.raises(error) as caught:
        client.item("s1")
    assert len(waits) == 2
    if isinstance(caught.value, Unavailable):
        assert caught.value.stores == ["index"]


@pytest.mark.parametrize(
    "answer", [refusal(404), refusal(409, "1"), refusal(422), refusal(503, "60"), refusal(500)]
)
def test_what_does_not_pass_or_takes_too_long_is_raised_at_once(
    made: Callable[..., Any], answer: httpx.Response
) -> None:
    client, waits = slept(made, Scripted(answer))
    with client, pytest.raises(ApiError) as caught:
        client.item("s1")
    assert caught.value.status == answer.status_code
    assert waits == []


REPORT = ReportRequest(seed="s1", item_id="c1", reason="not_similar")
REPORTED = httpx.Response(202, content=b'{"report_id": "r", "status": "pending", "reports": 1}')


def test_a_report_that_cannot_have_counted_is_sent_again(made: Callable[..., Any]) -> None:
    unsent = httpx.ConnectError("refused"), httpx.ConnectTimeout("slow")
    client, waits = slept(made, Scripted(*unsent, refusal(429, "1"), REPORTED))
    with client:
        assert client.report(REPORT).reports == 1
    assert len(waits) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.ReadTimeout("slow"), Unreachable),
        (httpx.RemoteProtocolError("cut off"), Unreachable),
        # The work of an answer that took too long goes on.
        (refusal(503, "1"), Unavailable),
    ],
)
def test_a_report_that_may_have_counted_is_not_sent_again(
    made: Callable[..., Any], answer: Any, error: type[Exception]
) -> None:
    client, waits = slept(made, Scripted(answer))
    with client, pytest.raises(error) as caught:
        client.report(REPORT)
    assert waits == []
    assert getattr(caught.value, "sent", True)


def test_long_lists_are_posted_in_parts_that_the_service_takes(made: Callable[..., Any]) -> None:
    short, long = "läuft " * 50, "läuft " * 1_000
    texts = [*[short] * 700, *[long] * 600, "x" * 199_000]
    events = [
        ProductUpserted(product_id=str(number), occurred_at=NOW, title="Boot", description=text)
        for number, text in enumerate(texts)
    ]
    sizes: list[int] = []
    seen: list[ProductUpserted] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["content-type"] == "application/json"
        bodies = json.loads(request.read())
        sizes.append(len(request.content))
        seen.extend(map(ProductUpserted.model_validate, bodies))
        return httpx.Response(202, json={"acknowledged": len(bodies)})

    with made("http://test", transport=httpx.MockTransport(answer)) as client:
        assert client.publish_products(events) == len(events)
    assert seen == events
    assert max(sizes) < ServiceSettings().max_body_bytes // 2 + 100
    # Filled by number where events are short, and by bytes where they are long.
    assert len(sizes) < 8


def test_changes_are_read_as_they_come_and_the_end_of_the_stream_is_the_end(made: Callable[..., Any]) -> None:
    # The example of the document: comments, and messages between them.
    stream = httpx.Response(200, content=examples.UPDATES_STREAM.encode() + b": still here\n\n")
    client, _ = slept(made, Scripted(stream))
    with client:
        (message,) = list(client.updates())
    assert isinstance(message, UpdatesView)
    assert message.updates[0].item_id


class Dripped(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes a few bytes at a time."""

    def __init__(self, body: bytes, size: int) -> None:
        self._parts = [body[start : start + size] for start in range(0, len(body), size)]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_line_of_the_stream_ends_where_a_line_feed_is_and_nowhere_else(
    made: Callable[..., Any], end: bytes, size: int
) -> None:
    titles = ["Boot\u2028red", "Boot\u2029red", "Boot\x85red", "Boot\x0bred"]
    (example,) = [line for line in examples.UPDATES_STREAM.split("\n") if line.startswith("data: ")]
    view = UpdatesView.model_validate_json(example[6:])
    lines = [b": listening", b""]
    for title in titles:
        shown = view.model_copy(update={"updates": [view.updates[0].model_copy(update={"title": title})]})
        lines += [b"event: updates", b"data: " + orjson.dumps(shown.model_dump(mode="json")), b""]
    body = end.join([*lines, b"data: {cut off"])

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Dripped(body, size))

    with made("http://test", transport=httpx.MockTransport(answer)) as client:
        assert [message.updates[0].title for message in client.updates()] == titles


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal(503, "30", store="broker"), Unavailable),
        (refusal(403), Forbidden),
        (httpx.ReadTimeout("slow"), Unreachable),
    ],
)
def test_a_stream_that_cannot_be_had_says_why_at_once(
    made: Callable[..., Any], answer: Any, error: type[Exception]
) -> None:
    client, waits = slept(made, Scripted(answer))
    with client, pytest.raises(error):
        list(client.updates())
    assert waits == []


def test_an_answer_of_somebody_in_between_is_an_error_with_its_text(made: Callable[..., Any]) -> None:
    client, _ = slept(made, Scripted(httpx.Response(502, content=b"<html>bad gateway</html>")))
    with client, pytest.raises(ApiError, match="502 Bad Gateway: <html>bad gateway"):
        client.item("s1")


def test_a_success_that_is_not_the_service_s_is_an_error_with_its_text(made: Callable[..., Any]) -> None:
    client, _ = slept(made, Scripted(httpx.Response(200, content=b"<html>please sign in</html>")))
    with client, pytest.raises(ApiError, match="200 OK: <html>please sign in"):
        client.similar("a")


def test_the_key_is_not_shown() -> None:
    with Simstream("http://test", key=KEY) as client:
        assert KEY not in repr(client)
    assert KEY not in repr(AsyncSimstream("http://test", key=KEY))


def test_the_client_is_imported_without_torch_or_anything_of_the_service() -> None:
    code = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        refused = {"torch", "transformers", "numpy", "fastapi", "uvicorn", "redis", "confluent_kafka",
                   "pyarrow", "qdrant_client", "adapters", "service", "app", "model", "consumers"}
        if name.partition(".")[0] in refused:
            raise ImportError("refused: " + name)
sys.meta_path.insert(0, Refusing())
import client
print(client.Simstream("http://test"))
try:
    import numpy
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Simstream('http://test')", "refused:", "numpy"]
