from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from producers.importers import Importer, Lane, Rejects, Tally, rejected_path, remove_stale
from producers.mapping import TARGETS, EventMaker, mapping_of
from producers.rows import Row, UnreadableFile, opened
from schemas.topics import BULK_LANE, LANE_HEADER, Topics
from tests.producers.doubles import Answers, RecordingPublisher, documents

TOPIC = Topics.named().products
BULK = ((LANE_HEADER, BULK_LANE.encode()),)


class Ticks:
    """A clock that moves by `step` seconds at each look."""

    def __init__(self, step: float) -> None:
        self._now = 0.0
        self._step = step

    def __call__(self) -> float:
        self._now += self._step
        return self._now


def lines(count: int) -> str:
    return "".join(json.dumps({"product_id": str(n), "title": f"Thing {n}"}) + "\n" for n in range(count))


def importing(
    publisher: RecordingPublisher,
    folder: Path,
    content: str,
    *,
    stream: bool = False,
    target: str = "products",
    rejects: Path | None = None,
    **options: Any,
) -> Tally:
    wanted = TARGETS[target]
    importer = Importer(
        publisher=publisher,
        topic=getattr(Topics.named(), target),
        target=wanted,
        maker=EventMaker(wanted, mapping_of(wanted), clock=lambda: datetime(2026, 1, 1, tzinfo=UTC)),
        **{"monotonic": Ticks(0.001), **options},
    )
    path = folder / "in.jsonl"
    path.write_text(content)
    with opened(
        "-" if stream else str(path), file_format="jsonl", standard_input=io.BytesIO(content.encode())
    ) as source:
        return importer.run(source, Rejects(rejects or folder / "rejected.jsonl"))


def rejected(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


def test_rows_become_events_under_their_key_and_every_one_is_confirmed(tmp_path: Path) -> None:
    publisher = RecordingPublisher()
    tally = importing(publisher, tmp_path, lines(3))
    assert [record.key for record in publisher.sent] == [b"0", b"1", b"2"]
    assert {record.topic for record in publisher.sent} == {TOPIC.name}
    assert documents(publisher.sent)[0] == {
        "kind": "product_upserted",
        "product_id": "0",
        "title": "Thing 0",
        "occurred_at": "2026-01-01T00:00:00Z",
        "category": [],
        "attributes": {},
    }
    assert (tally.read, tally.sent, tally.acknowledged, tally.rejected, tally.failed) == (3, 3, 3, 0, 0)
    assert tally.rejected_file is None
    assert not (tmp_path / "rejected.jsonl").exists()


def test_user_events_are_keyed_by_their_user(tmp_path: Path) -> None:
    publisher = RecordingPublisher()
    row = {"event_id": "e", "type": "view", "user_id": "u", "product_id": "p"}
    importing(publisher, tmp_path, json.dumps(row), target="events")
    assert publisher.sent[0].key == b"u"


def test_rejected_rows_go_to_a_file_with_line_reason_and_original(tmp_path: Path) -> None:
    good = '{"product_id": "1", "title": "x"}'
    tally = importing(RecordingPublisher(), tmp_path, f'{good}\n\nnonsense\n{{"product_id": "2"}}\n{good}\n')
    assert (tally.read, tally.acknowledged, tally.rejected) == (4, 2, 2)
    assert tally.rejected_file == tmp_path / "rejected.jsonl"
    first, second = rejected(tmp_path)
    assert (first["line"], first["original"]) == (3, "nonsense")
    assert first["reason"].startswith("not JSON")
    assert (second["line"], second["original"]) == (4, '{"product_id": "2"}')
    assert "field 'title' is missing" in second["reason"]
    assert sum(tally.reasons.values()) == 2


def test_what_the_broker_refuses_is_counted_as_failed_and_can_be_published_again(tmp_path: Path) -> None:
    publisher = RecordingPublisher(Answers(errors={1: RuntimeError("no leader")}))
    tally = importing(publisher, tmp_path, lines(3))
    assert (tally.acknowledged, tally.failed, tally.unconfirmed) == (2, 1, 0)
    (entry,) = rejected(tmp_path)
    assert entry["line"] == 2
    assert "no leader" in entry["reason"]
    assert json.loads(entry["original"])["product_id"] == "1"


def test_what_the_broker_never_answers_is_unconfirmed_and_not_waited_for_for_ever(tmp_path: Path) -> None:
    publisher = RecordingPublisher(Answers(silent=frozenset({0, 2})))
    tally = importing(publisher, tmp_path, lines(3), flush_seconds=1.0, monotonic=Ticks(0.3))
    assert (tally.acknowledged, tally.unconfirmed, tally.failed) == (1, 2, 0)


def test_an_event_too_large_for_its_topic_is_rejected_before_it_is_sent(tmp_path: Path) -> None:
    row = {"product_id": "1", "title": "x", "attributes": {f"a{n}": "\u20ac" * 2_000 for n in range(199)}}
    publisher = RecordingPublisher()
    tally = importing(publisher, tmp_path, json.dumps(row) + "\n" + lines(1))
    assert len(publisher.sent) == 1
    assert tally.rejected == 1
    assert "takes 1048576 at most" in rejected(tmp_path)[0]["reason"]


@pytest.mark.parametrize(("count", "bulk"), [(1_000, False), (1_001, True)])
def test_more_than_a_thousand_rows_of_a_file_all_travel_in_the_bulk_lane(
    tmp_path: Path, count: int, bulk: bool
) -> None:
    publisher = RecordingPublisher()
    tally = importing(publisher, tmp_path, lines(count))
    assert {record.headers for record in publisher.sent} == {BULK if bulk else ()}
    assert tally.bulk == (count if bulk else 0)


@pytest.mark.parametrize(("lane", "headers"), [(Lane.LIVE, ()), (Lane.BULK, BULK)])
def test_a_lane_that_is_asked_for_is_taken(
    tmp_path: Path, lane: Lane, headers: tuple[tuple[str, bytes], ...]
) -> None:
    publisher = RecordingPublisher()
    importing(publisher, tmp_path, lines(1_002), lane=lane)
    assert {record.headers for record in publisher.sent} == {headers}


def test_a_flood_on_standard_input_is_an_import_from_its_thousandth_row(tmp_path: Path) -> None:
    publisher = RecordingPublisher()
    importing(publisher, tmp_path, lines(1_500), stream=True, monotonic=Ticks(0.001))
    assert [record.headers for record in publisher.sent] == [()] * 1_000 + [BULK] * 500


def test_a_trickle_on_standard_input_stays_live_however_long_it_gets(tmp_path: Path) -> None:
    publisher = RecordingPublisher()
    importing(publisher, tmp_path, lines(2_500), stream=True, monotonic=Ticks(0.1), flush_seconds=1e9)
    assert {record.headers for record in publisher.sent} == {()}


def test_a_stream_sends_each_row_before_it_reads_the_next(tmp_path: Path) -> None:
    publisher = RecordingPublisher()
    seen: list[int] = []

    class Slow(io.RawIOBase):
        """Gives one line per read, and notes how much had been sent by then."""

        def __init__(self) -> None:
            self._lines: Iterator[bytes] = iter(lines(5).encode().splitlines(keepends=True))

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            seen.append(len(publisher.sent))
            line = next(self._lines, b"")
            buffer[: len(line)] = line
            return len(line)

    wanted = TARGETS["products"]
    importer = Importer(
        publisher=publisher,
        topic=TOPIC,
        target=wanted,
        maker=EventMaker(wanted, mapping_of(wanted), clock=lambda: datetime.now(UTC)),
    )
    standard_input: Any = io.BufferedReader(Slow())
    with opened("-", file_format="jsonl", standard_input=standard_input) as source:
        importer.run(source, Rejects(tmp_path / "r"))
    assert seen[:5] == [0, 1, 2, 3, 4]


def test_ctrl_c_stops_reading_and_still_waits_for_what_is_under_way(tmp_path: Path) -> None:
    def interrupt(sent: int) -> None:
        if sent == 5:
            raise KeyboardInterrupt

    publisher = RecordingPublisher(before_send=interrupt)
    tally = importing(publisher, tmp_path, lines(100))
    assert tally.interrupted
    assert (len(publisher.sent), tally.acknowledged) == (5, 5)
    assert (tally.read, tally.unsent, tally.unconfirmed) == (6, 1, 0)


def test_a_file_that_breaks_in_the_middle_is_reported_after_what_came_before(tmp_path: Path) -> None:
    publisher = RecordingPublisher()
    tally = importing(publisher, tmp_path, "[1]\n" + lines(2))
    assert tally.unreadable is not None
    assert tally.read == 0


def test_the_counts_add_up_whatever_happens(tmp_path: Path) -> None:
    content = "".join(
        "bad\n" if n % 7 == 0 else json.dumps({"product_id": str(n), "title": "x"}) + "\n" for n in range(300)
    )
    answers = Answers(errors={n: RuntimeError("no") for n in range(0, 200, 11)}, silent=frozenset({3, 50}))
    publisher = RecordingPublisher(answers)
    tally = importing(publisher, tmp_path, content, flush_seconds=1.0, monotonic=Ticks(0.01))
    assert tally.read == 300
    assert tally.rejected + tally.acknowledged + tally.failed + tally.unconfirmed == 300
    assert tally.rejected == 43
    assert tally.failed == 19
    assert tally.unconfirmed == 2


def test_rejects_lie_beside_their_input_and_those_of_an_earlier_run_are_taken_away(tmp_path: Path) -> None:
    assert rejected_path("a/b.csv") == Path("a/b.csv.rejected.jsonl")
    assert rejected_path("-") == Path("stdin.rejected.jsonl")
    stale = tmp_path / "x"
    stale.write_text("old")
    remove_stale(stale)
    remove_stale(stale)
    assert not stale.exists()
    stale.mkdir()
    with pytest.raises(UnreadableFile, match="cannot be removed: Is a directory"):
        remove_stale(stale)


@pytest.mark.parametrize(
    ("name", "said"), [("nodir/x.jsonl", "No such file or directory"), ("", "Is a directory")]
)
def test_rejects_that_could_not_be_written_are_refused_before_anything_is_sent(
    tmp_path: Path, name: str, said: str
) -> None:
    publisher = RecordingPublisher()
    tally = importing(publisher, tmp_path, lines(3), rejects=tmp_path / name)
    assert f"cannot be written ({said})" in (tally.unreadable or "")
    assert (tally.read, publisher.sent, tally.rejected_file) == (0, [], None)


def test_looking_whether_rejects_can_be_written_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rejected.jsonl"
    path.write_text("of another run\n")
    tally = importing(RecordingPublisher(), tmp_path, lines(1))
    assert (tally.unreadable, path.read_text()) == (None, "of another run\n")


def test_a_disk_that_fills_with_rejects_ends_the_import_with_its_counts(tmp_path: Path) -> None:
    good, bad = lines(1), "x" * 5_000 + "\n"
    publisher = RecordingPublisher()
    tally = importing(publisher, tmp_path, good + bad * 10 + good, rejects=Path("/dev/full"))
    assert "No space left on device" in (tally.unreadable or "")
    assert tally.read < 12
    assert (tally.sent, tally.acknowledged, tally.unconfirmed) == (1, 1, 0)
    assert tally.rejected == tally.read - 1
    # Too few to be written before the end: it is seen when the file is closed.
    tally = importing(publisher, tmp_path, "bad\n" + good, rejects=Path("/dev/full"))
    assert "No space left on device" in (tally.unreadable or "")
    assert (tally.read, tally.rejected, tally.acknowledged) == (2, 1, 1)


def test_a_reject_that_cannot_be_written_does_not_leave_the_publisher_s_thread(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    answers = Answers(errors={0: RuntimeError("no leader"), 2: RuntimeError("no leader")})
    publisher = RecordingPublisher(answers, before_send=lambda sent: folder.rmdir() if sent == 0 else None)
    tally = importing(publisher, tmp_path, lines(3), rejects=folder / "rejected.jsonl")
    assert (tally.acknowledged, tally.failed, tally.unconfirmed) == (1, 2, 0)
    assert "cannot be written (No such file or directory)" in (tally.unreadable or "")


def test_rejects_after_the_end_are_not_written(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path / "r")
    rejects.add(Row(1, "a"), "why")
    rejects.close()
    rejects.add(Row(2, "b"), "late")
    assert len((tmp_path / "r").read_text().splitlines()) == 1
