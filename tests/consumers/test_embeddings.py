"""Hints become points: the order of reading and writing, refusals, waiting texts, tombstones, two lanes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from adapters.index_edge import EdgeIndex
from adapters.kafka import Record
from consumers.embeddings import EmbeddingsHandler, EmbeddingsSettings
from consumers.progress import Delivery, Progress
from consumers.work import BULK, LIVE, Hint, Worklist
from model.text import ProductText
from schemas.errors import PoisonMessage, Transient
from schemas.events import ItemChanged, ItemUpdated
from schemas.items import tombstone_payload
from schemas.topics import Topics
from schemas.vectors import CONTENT, LEXICAL, Point
from tests.consumers.conftest import COLLECTION
from tests.consumers.state import NOW, State
from tests.producers.doubles import Answers, RecordingPublisher
from tests.support.consumer_process import TicketlessIndex
from tests.support.fake_encoder import FakeEncoder

TOPICS = Topics.named()
QUICK = EmbeddingsSettings(backoff_seconds=0.005, max_backoff_seconds=0.01)
LATER = NOW + timedelta(minutes=5)
#: A ticket that no clock will reach while these tests run.
FAR = 2**52


class Spied:
    """Stands before a store or an index: keeps the order of calls, and lets a test fail or hold them."""

    def __init__(self, inner: object, calls: list[str]) -> None:
        self._inner = inner
        self.calls = calls
        #: Not among the calls: they come whenever there is nothing else to do.
        self.sweeps = 0
        #: Raised, one a call, instead of the method of that name, or after it.
        self.failures: dict[str, list[BaseException]] = {}
        self.lost_answers: dict[str, list[BaseException]] = {}
        #: Run before the method of that name.
        self.before: dict[str, Callable[[], object]] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def call(*args: Any, **more: Any) -> Any:
            if name == "delete_where":
                self.sweeps += 1
            else:
                self.calls.append(f"{name} above {more['floor']}" if more.get("floor") else name)
            if name in self.before:
                self.before[name]()
            if self.failures.get(name):
                raise self.failures[name].pop(0)
            answer = method(*args, **more)
            if self.lost_answers.get(name):
                raise self.lost_answers[name].pop(0)
            return answer

        return call


class GatedEncoder(FakeEncoder):
    """Encodes a lane only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = {background: threading.Event() for background in (False, True)}
        self.entered = {background: threading.Event() for background in (False, True)}
        self.failure: BaseException | None = None
        for gate in self.gates.values():
            gate.set()

    def encode(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> list[list[float]]:
        self.entered[background].set()
        assert self.gates[background].wait(10.0)
        if self.failure is not None:
            raise self.failure
        return super().encode(texts, query=query, background=background)


def hints(*product_ids: str, lane: int = LIVE) -> list[Delivery[Hint]]:
    progress = Progress(None)
    return [
        Delivery(Hint(product_id, lane, NOW, NOW + timedelta(seconds=1)), offset, progress)
        for offset, product_id in enumerate(product_ids)
    ]


class Rig:
    """One handler over the test's state and index, and what it said and did."""

    def __init__(self, state: State, index: Any, **more: Any) -> None:
        self.calls: list[str] = []
        self._look = index
        self.store, self.index = Spied(state.store, self.calls), Spied(index, self.calls)
        self.encoder = GatedEncoder()
        self.publisher: RecordingPublisher = more.pop("publisher", None) or RecordingPublisher()
        self.now = LATER
        collaborators: dict[str, Any] = {"store": self.store, "index": self.index}
        self.handler = EmbeddingsHandler(
            **collaborators,
            collection=COLLECTION,
            encoder=self.encoder,
            recipe=ProductText(),
            publisher=self.publisher,
            topics=TOPICS,
            now=lambda: self.now,
            **{"settings": QUICK, **more},
        )

    def hint(self, *product_ids: str, lane: int = LIVE) -> list[Delivery[Hint]]:
        """Hand in hints, without waiting for what becomes of them."""
        made = hints(*product_ids, lane=lane)
        self.handler.handle(made)
        return made

    def until(self, condition: Callable[[], object], timeout_seconds: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if (failure := self.handler.fatal()) is not None:
                raise failure
            assert time.monotonic() < deadline, f"it did not come to that: {self.calls}"
            time.sleep(0.002)

    def serve(self, *product_ids: str, lane: int = LIVE) -> None:
        """Hints, and wait until they are settled."""
        made = self.hint(*product_ids, lane=lane)
        self.until(lambda: all(hint.settled for hint in made))

    def point(self, product_id: str = "p1") -> Point | None:
        found: dict[str, Point] = self._look.fetch(COLLECTION, [product_id], vectors=True)
        return found.get(product_id)

    def payload(self, product_id: str = "p1") -> dict[str, Any]:
        point = self.point(product_id)
        assert point is not None
        return dict(point.payload)

    def updates(self) -> list[ItemUpdated]:
        assert {sent.topic for sent in self.publisher.sent} <= {TOPICS.updated.name}
        return [ItemUpdated.model_validate_json(sent.value) for sent in self.publisher.sent]


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig(state: State, index: EdgeIndex) -> Iterator[MakeRig]:
    made: list[Rig] = []

    def make(over: Any = None, **more: Any) -> Rig:
        made.append(Rig(state, over or index, **more))
        return made[-1]

    yield make
    for rig in made:
        for gate in rig.encoder.gates.values():
            gate.set()
        rig.handler.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig()


# --- one way to write -------------------------------------------------------------------------------


def test_the_ticket_is_drawn_before_both_reads_and_the_write_comes_last(rig: Rig, state: State) -> None:
    state.put()
    rig.serve("p1")
    # Once without a vector, once with it.
    compared = ["draw_ticket", "read", "fetch"]
    assert rig.calls == [*compared, *compared, "upsert"]


def test_many_items_are_one_write(rig: Rig, state: State) -> None:
    ids = [f"p{number}" for number in range(50)]
    state.put_all(ids)
    rig.serve(*ids)
    state.put_all(ids, 2, price="5.00")
    rig.calls.clear()
    rig.serve(*ids)
    assert rig.calls == ["draw_ticket", "read", "fetch", "change_payloads"]
    assert {rig.payload(one)["price"] for one in ids} == {5.0}


#: What changes, and by which of the two ways it is written.
WRITES = pytest.mark.parametrize(
    ("write", "field", "two", "three"),
    [("change_payloads", "price", "2.00", "3.00"), ("upsert", "title", "Second", "Third")],
)


def late_write(
    first: Rig, second: Rig, state: State, *, write: str, field: str, two: str, three: str
) -> None:
    """`first` has read revision 2 and is held before its write; `second` writes revision 3 meanwhile."""
    state.put(revision=1)
    second.serve("p1")
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert free.wait(10.0)

    state.put(revision=2, **{field: two})
    first.index.before[write] = hold
    (hint,) = first.hint("p1")
    assert held.wait(10.0)
    state.put(revision=3, **{field: three})
    second.serve("p1")
    assert second.payload()["revision"] == 3
    free.set()
    first.until(lambda: hint.settled)


@WRITES
def test_the_write_of_one_who_read_earlier_is_refused_and_its_hint_is_served(
    make_rig: MakeRig, state: State, write: str, field: str, two: str, three: str
) -> None:
    first, second = make_rig(), make_rig()
    late_write(first, second, state, write=write, field=field, two=two, three=three)
    assert first.calls.count(write) == 1
    assert second.payload()["revision"] == 3


@WRITES
def test_without_tickets_the_late_write_would_win(
    make_rig: MakeRig, state: State, index: EdgeIndex, write: str, field: str, two: str, three: str
) -> None:
    first, second = make_rig(TicketlessIndex(index)), make_rig(TicketlessIndex(index))
    late_write(first, second, state, write=write, field=field, two=two, three=three)
    assert second.payload()["revision"] == 2


def test_a_payload_refused_for_a_write_of_one_who_read_earlier_is_compared_again(
    rig: Rig, state: State, index: EdgeIndex
) -> None:
    """Who wrote between our reading and our write may have read before us: our change is still owed."""
    state.put()
    rig.serve("p1")
    state.put(revision=2, price="5.00")
    point = rig.point()
    assert point is not None

    def another_writes() -> None:
        rig.index.before.clear()
        index.upsert(COLLECTION, [point], ticket=int(point.payload["ticket"]) + 1)

    rig.index.before["change_payloads"] = another_writes
    rig.calls.clear()
    rig.serve("p1")
    assert rig.calls.count("change_payloads") == 2
    assert rig.payload()["price"] == 5.0
    assert [update.revision for update in rig.updates()] == [1, 2]


def test_a_new_text_keeps_the_vectors_that_are_not_made_from_it(
    rig: Rig, state: State, index: EdgeIndex
) -> None:
    state.put()
    state.digest("p1", "Quiet and light")
    rig.serve("p1")
    before = rig.point()
    assert before is not None
    state.put(revision=2, title="Another name")
    rig.calls.clear()
    rig.serve("p1")
    after = rig.point()
    assert after is not None
    assert after.vectors["reviews"] == before.vectors["reviews"]
    assert after.vectors["content"] != before.vectors["content"]
    # The second reading, with vectors, is of what has to be written whole.
    assert rig.calls[-4:] == ["read", "fetch", "fetch", "upsert"]


def test_a_point_with_a_newer_ticket_makes_it_draw_above_that_and_read_again(
    rig: Rig, state: State, index: EdgeIndex
) -> None:
    state.put()
    rig.serve("p1")
    point = rig.point()
    assert point is not None
    index.upsert(COLLECTION, [point], ticket=FAR)
    state.put(revision=2, price="5.00")
    rig.calls.clear()
    rig.serve("p1")
    assert rig.calls == [
        "draw_ticket",
        "read",
        "fetch",
        f"draw_ticket above {FAR}",
        "read",
        "fetch",
        "change_payloads",
    ]
    assert rig.payload()["price"] == 5.0
    assert rig.payload()["ticket"] == FAR + 1
    rig.calls.clear()
    state.put(revision=3, price="6.00")
    rig.serve("p1")
    assert rig.calls == ["draw_ticket", "read", "fetch", "change_payloads"]  # the counter has passed it


def test_a_hint_that_would_change_nothing_writes_nothing_and_tells_nobody(rig: Rig, state: State) -> None:
    state.put()
    rig.serve("p1")
    told = len(rig.publisher.sent)
    rig.calls.clear()
    rig.serve("p1", "p1")
    assert "upsert" not in rig.calls
    assert len(rig.publisher.sent) == told


# --- texts that wait for the encoder ----------------------------------------------------------------


def test_a_new_price_never_runs_the_encoder(rig: Rig, state: State) -> None:
    state.put()
    rig.serve("p1")
    before = rig.point()
    assert before is not None
    assert rig.encoder.calls == 1
    state.put(revision=2, price="5.00")
    rig.serve("p1")
    after = rig.point()
    assert after is not None
    assert rig.encoder.calls == 1
    assert after.payload["price"] == 5.0
    assert after.vectors == before.vectors


def test_a_new_price_is_visible_while_the_new_text_still_waits_and_its_hint_stays_open(
    rig: Rig, state: State
) -> None:
    state.put()
    rig.serve("p1")
    before = rig.point()
    assert before is not None
    rig.encoder.gates[False].clear()
    changed = state.put(revision=2, price="5.00", title="Blue kettle")
    (hint,) = rig.hint("p1")
    rig.until(lambda: rig.payload()["price"] == 5.0)
    halfway = rig.point()
    assert halfway is not None
    assert not hint.settled
    assert halfway.vectors == before.vectors
    assert halfway.payload["fingerprints"][CONTENT] == before.payload["fingerprints"][CONTENT]
    rig.encoder.gates[False].set()
    rig.until(lambda: hint.settled)
    after = rig.point()
    assert after is not None
    assert after.vectors[CONTENT] != before.vectors[CONTENT]
    assert after.payload["fingerprints"][CONTENT] == ProductText().fingerprint(changed)


def test_a_text_that_changed_while_it_was_encoded_is_encoded_again_and_never_shown(
    rig: Rig, state: State
) -> None:
    rig.encoder.gates[False].clear()
    state.put(title="First words")
    first = rig.hint("p1")
    assert rig.encoder.entered[False].wait(10.0)
    state.put(revision=2, title="Second words")
    second = rig.hint("p1")
    rig.encoder.gates[False].set()
    rig.until(lambda: all(hint.settled for hint in first + second))
    assert rig.payload()["title"] == "Second words"
    assert [update.revision for update in rig.updates()] == [2]
    assert any("Second words" in text for text in rig.encoder.texts)


def test_the_bulk_lane_is_encoded_in_the_background_and_holds_up_no_live_change(
    rig: Rig, state: State
) -> None:
    state.put_all(["bulk", "live"])
    rig.encoder.gates[True].clear()
    (slow,) = rig.hint("bulk", lane=BULK)
    assert rig.encoder.entered[True].wait(10.0)
    rig.serve("live")
    assert not slow.settled
    assert rig.point("bulk") is None
    rig.encoder.gates[True].set()
    rig.until(lambda: slow.settled)
    assert rig.point("bulk") is not None


# --- tombstones -------------------------------------------------------------------------------------


def test_a_deleted_item_becomes_a_point_without_vectors_and_comes_back_whole(rig: Rig, state: State) -> None:
    state.put()
    rig.serve("p1")
    state.delete("p1", revision=2)
    rig.serve("p1")
    gone = rig.point()
    assert gone is not None
    assert not gone.vectors
    assert (gone.payload["deleted"], gone.payload["revision"]) == (True, 2)
    assert gone.payload["deleted_at"] == int(LATER.timestamp())
    state.put(revision=3, title="Back again")
    rig.serve("p1")
    back = rig.point()
    assert back is not None
    assert back.vectors.keys() == {CONTENT, LEXICAL}
    assert back.payload["deleted"] is False


def test_a_hint_for_an_unknown_item_hides_its_point_and_makes_none(
    rig: Rig, state: State, index: EdgeIndex
) -> None:
    state.put("foreign")
    rig.serve("foreign")
    point = rig.point("foreign")
    assert point is not None
    index.upsert(
        COLLECTION, [Point("unknown", point.vectors, {**point.payload, "product_id": "unknown"})], ticket=1
    )
    rig.calls.clear()
    rig.serve("unknown", "never seen")
    assert rig.payload("unknown")["deleted"] is True
    assert rig.point("never seen") is None
    rig.calls.clear()
    rig.serve("unknown", "never seen")
    assert "upsert" not in rig.calls


def tombstone(product_id: str, deleted_at: datetime) -> Point:
    return Point(product_id, {}, tombstone_payload(product_id, revision=1, deleted_at=deleted_at))


def test_tombstones_are_swept_once_they_are_older_than_the_grace(
    make_rig: MakeRig, state: State, index: EdgeIndex
) -> None:
    settings = QUICK.model_copy(update={"tombstone_grace_seconds": 60.0, "sweep_interval_seconds": 0.01})
    old, young = LATER - timedelta(seconds=61), LATER - timedelta(seconds=59)
    index.upsert(COLLECTION, [tombstone("old", old), tombstone("young", young)], ticket=1)
    state.put("live")
    rig = make_rig(settings=settings)
    rig.serve("live")
    rig.until(lambda: rig.point("old") is None)
    sweeps = rig.index.sweeps
    rig.until(lambda: rig.index.sweeps > sweeps + 1)
    assert rig.payload("young")["deleted"] is True
    assert rig.payload("live")["deleted"] is False


def test_tombstones_are_swept_also_while_there_is_always_something_to_write(
    make_rig: MakeRig, state: State, index: EdgeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.upsert(COLLECTION, [tombstone("old", LATER - timedelta(days=2))], ticket=1)
    state.put("live")
    take, idle = Worklist.take_due, threading.Event()

    def busy(work: Worklist, limit: int, *, timeout_seconds: float) -> Any:
        work.add(hints("live"))
        taken = take(work, limit, timeout_seconds=timeout_seconds)
        if not taken:
            idle.set()
        return taken

    monkeypatch.setattr(Worklist, "take_due", busy)
    rig = make_rig()
    rig.until(lambda: rig.point("old") is None)
    assert not idle.is_set()


def test_a_sweep_that_fails_waits_for_its_turn_and_writes_go_on(
    make_rig: MakeRig, state: State, index: EdgeIndex
) -> None:
    index.upsert(COLLECTION, [tombstone("old", LATER - timedelta(days=2))], ticket=1)
    state.put("live")
    rig = make_rig(settings=QUICK.model_copy(update={"sweep_interval_seconds": 0.01}))
    rig.index.failures["delete_where"] = [Transient("away")] * 3
    rig.serve("live")
    rig.until(lambda: rig.point("old") is None)
    assert not rig.index.failures["delete_where"]


# --- when something fails ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "what"),
    [
        ("store", "draw_ticket"),
        ("store", "read"),
        ("index", "fetch"),
        ("index", "upsert"),
        ("index", "change_payloads"),
    ],
)
def test_what_is_away_is_waited_for_with_a_new_ticket_and_nothing_settles_meanwhile(
    rig: Rig, state: State, who: str, what: str
) -> None:
    state.put()
    if what != "upsert":
        rig.serve("p1")
    state.put(revision=2, price="5.00")
    rig.calls.clear()
    failing: Spied = getattr(rig, who)
    failing.failures[what] = [Transient("away")] * 3
    settled: list[bool] = []
    (hint,) = hints("p1")
    failing.before[what] = lambda: settled.append(hint.settled)
    rig.handler.handle([hint])
    rig.until(lambda: hint.settled)
    assert rig.calls.count(what) == 4
    # A new item is compared once more, before its vector is there.
    assert rig.calls.count("draw_ticket") == 4 + (what == "upsert")
    assert settled[:4] == [False] * 4
    assert rig.payload()["price"] == 5.0


@pytest.mark.parametrize("write", ["upsert", "change_payloads"])
def test_a_write_whose_answer_was_lost_is_compared_again_and_not_written_twice(
    rig: Rig, state: State, write: str
) -> None:
    state.put()
    if write == "change_payloads":
        rig.serve("p1")
    state.put(revision=2, price="5.00")
    rig.calls.clear()
    rig.index.lost_answers[write] = [Transient("the answer did not come")]
    rig.serve("p1")
    assert rig.calls[-4:] == [write, "draw_ticket", "read", "fetch"]
    assert rig.calls.count(write) == 1
    assert rig.payload()["price"] == 5.0


@pytest.mark.parametrize("where", ["reading", "encoding"])
def test_what_ends_a_thread_is_reported_and_its_hints_stay_open(rig: Rig, state: State, where: str) -> None:
    state.put()
    error = ValueError("no such collection")
    if where == "reading":
        rig.index.failures["fetch"] = [error]
    else:
        rig.encoder.failure = error
    (hint,) = rig.hint("p1")
    deadline = time.monotonic() + 10.0
    while rig.handler.fatal() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert rig.handler.fatal() is error
    assert not hint.settled


def test_hints_in_hand_stay_open_when_it_is_closed(rig: Rig, state: State) -> None:
    state.put()
    rig.encoder.gates[False].clear()
    (hint,) = rig.hint("p1")
    assert rig.encoder.entered[False].wait(10.0)
    threading.Timer(0.1, rig.encoder.gates[False].set).start()  # close waits for what the encoder has
    rig.handler.close()
    assert rig.handler.fatal() is None
    assert rig.point() is None
    assert not hint.settled


# --- what it says, and what it hears ----------------------------------------------------------------


def test_an_update_says_what_moved_what_it_cost_and_when_each_stage_was(rig: Rig, state: State) -> None:
    state.put(revision=4)
    rig.serve("p1")
    state.put(revision=5, price="5.00")
    rig.serve("p1")
    state.delete("p1", revision=6)
    rig.serve("p1")
    created, cheaper, gone = rig.updates()
    assert [sent.key for sent in rig.publisher.sent] == [b"p1"] * 3
    assert (created.product_id, created.collection, created.revision) == ("p1", COLLECTION, 4)
    assert (created.dimensions, created.encoder_calls) == ([CONTENT, LEXICAL, "context"], 1)
    assert created.stages.occurred_at == NOW
    assert created.stages.consumed_at == NOW + timedelta(seconds=1)
    assert (created.stages.encoded_at, created.stages.searchable_at) == (LATER, LATER)
    assert (cheaper.dimensions, cheaper.encoder_calls, cheaper.revision) == (["context"], 0, 5)
    assert cheaper.stages.encoded_at is None
    assert (gone.deleted, gone.dimensions, gone.revision) == (True, ["deleted"], 6)
    assert not created.deleted


def test_an_update_that_the_broker_refuses_is_said_and_holds_nothing_up(
    make_rig: MakeRig, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = RecordingPublisher(Answers({0: RuntimeError("too many")}))
    rig = make_rig(publisher=publisher)
    state.put()
    rig.serve("p1")
    assert rig.point() is not None
    publisher.flush(0.0)
    assert "item_updated_not_published reason=too many" in caplog.text


def changed(topic: str, **fields: Any) -> Record:
    body = ItemChanged(product_id="p1", occurred_at=NOW, **fields).model_dump_json().encode()
    return Record(topic, "id", 0, 0, 0, b"p1", body)


def test_a_hint_is_read_with_the_lane_of_its_topic(rig: Rig) -> None:
    hint = rig.handler.decode(changed(TOPICS.changed.name, consumed_at=LATER))
    assert hint == Hint("p1", LIVE, NOW, LATER)
    assert rig.handler.decode(changed(TOPICS.changed_bulk.name)) == Hint("p1", BULK, NOW, None)
    assert list(rig.handler.topics) == [TOPICS.changed.name, TOPICS.changed_bulk.name]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "must not be a null record"),
        (b"{", "Invalid JSON"),
        (b'{"kind": "item_changed"}', "'product_id'"),
    ],
)
def test_what_is_no_hint_is_poison(rig: Rig, body: bytes | None, said: str) -> None:
    with pytest.raises(PoisonMessage) as caught:
        rig.handler.decode(Record(TOPICS.changed.name, "id", 0, 0, 0, b"p1", body))
    assert said in caught.value.reason
    assert caught.value.kind == ("null" if body is None else "invalid")
