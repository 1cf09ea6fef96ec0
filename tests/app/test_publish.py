from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from adapters.kafka import KafkaSettings, Record
from app.commands import publish, schemas, shop
from app.discovery import kafka_settings
from app.settings import Settings
from consumers.reviews import ReviewsHandler, ReviewsSettings
from schemas.topics import Topics
from tests.producers.doubles import Answers, RecordingPublisher, documents

Run = Callable[..., Any]


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RecordingPublisher:
    """What the commands send through, in a folder of their own."""
    recording = RecordingPublisher()

    @contextmanager
    def broker(*_: Any, **__: Any) -> Iterator[RecordingPublisher]:
        yield recording

    monkeypatch.setattr(publish, "broker", broker)
    monkeypatch.setattr(shop, "broker", broker)
    monkeypatch.chdir(tmp_path)
    return recording


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    for module in (publish, shop, schemas):
        module.register(app)
    return lambda *arguments, **options: CliRunner().invoke(app, list(arguments), **options)


GOOD = '{"product_id": "1", "title": "x"}\n'


def test_publish_reports_what_the_broker_confirmed_and_leaves_with_zero(
    run: Run, publisher: RecordingPublisher
) -> None:
    Path("a.jsonl").write_text(GOOD * 3)
    result = run("publish", "products", "a.jsonl")
    assert "a.jsonl: 3 products read, 3 acknowledged by the broker, 0 rejected, 0 failed" in result.output
    assert result.exit_code == 0
    assert len(publisher.sent) == 3


def test_a_spreadsheet_of_a_chinese_windows_is_published_as_it_reads(
    run: Run, publisher: RecordingPublisher
) -> None:
    table = "编号,标题,类目,颜色\n1,越野跑鞋 男款,鞋靴/跑鞋,红色\n2,㐂壽司,食品/熟食,\n"
    Path("商品.csv").write_bytes(table.encode("gb18030"))
    maps = "product_id=编号 title=标题 category=类目".split()
    words = [word for pair in maps for word in ("--map", pair)]
    rest = ("--category-separator", "/", "--set", "language=zh", "--rest-as-attributes")
    unnamed = run("publish", "products", "商品.csv", *words, *rest)
    assert unnamed.exit_code != 0
    assert "--encoding" in unnamed.output
    assert publisher.sent == []
    result = run("publish", "products", "商品.csv", "--encoding", "gb18030", *words, *rest)
    assert result.exit_code == 0, result.output
    first, second = documents(publisher.sent)
    assert (first["title"], first["category"]) == ("越野跑鞋 男款", ["鞋靴", "跑鞋"])
    assert (first["attributes"], first["language"]) == ({"颜色": "红色"}, "zh")
    assert second["title"] == "㐂壽司"


def test_publish_leaves_with_two_where_rows_were_rejected_and_names_their_file(
    run: Run, publisher: RecordingPublisher
) -> None:
    Path("a.jsonl").write_text(GOOD + "nonsense\n")
    result = run("publish", "products", "a.jsonl")
    assert result.exit_code == 2
    assert "1 acknowledged by the broker, 1 rejected" in result.output
    assert "a.jsonl.rejected.jsonl" in result.output
    assert json.loads(Path("a.jsonl.rejected.jsonl").read_text())["line"] == 2


def test_what_publish_sends_of_reviews_is_what_the_reviews_consumer_reads(
    run: Run, publisher: RecordingPublisher
) -> None:
    Path("r.csv").write_text(
        "id,sku,author,stars,body,votes,when\n"
        "1,p1,eve,4.5,Works well every day.,3,2026-11-20T08:00:00Z\n"
        "2,p1,,,,,2026-11-21T08:00:00Z\n"
    )
    columns = "review_id=id product_id=sku user_id=author rating=stars text=body helpful_votes=votes"
    maps = [word for pair in (*columns.split(), "occurred_at=when") for word in ("--map", pair)]
    result = run("publish", "reviews", "r.csv", *maps)
    assert result.exit_code == 0, result.output
    nothing: Any = None
    handler = ReviewsHandler(
        store=nothing, publisher=nothing, topics=Topics.named(), settings=ReviewsSettings(), hash_key=b"k"
    )
    first, second = (
        handler.decode(Record(sent.topic, "T", 0, place, 1_796_000_000_000, sent.key, sent.value, ())).write
        for place, sent in enumerate(publisher.sent)
    )
    assert (first.product_id, first.review_id, first.rating, first.votes) == ("p1", "1", 4.5, 3)
    assert first.text == "Works well every day."
    assert first.shopper is not None
    assert (second.rating, second.text, second.shopper) == (None, "", None)


def test_publish_leaves_with_one_where_the_broker_did_not_take_a_row(
    run: Run, publisher: RecordingPublisher
) -> None:
    publisher._answers = Answers(errors={0: RuntimeError("no leader")})  # noqa: SLF001
    Path("a.jsonl").write_text(GOOD)
    result = run("publish", "products", "a.jsonl")
    assert result.exit_code == 1
    assert "1 failed" in result.output
    assert "no leader" in result.output


def test_publish_leaves_with_130_on_ctrl_c_and_says_what_was_done(
    run: Run, publisher: RecordingPublisher
) -> None:
    def interrupt(sent: int) -> None:
        if sent == 1:
            raise KeyboardInterrupt

    publisher._before_send = interrupt  # noqa: SLF001
    publisher._answers = Answers()  # noqa: SLF001
    Path("a.jsonl").write_text(GOOD * 2)
    result = run("publish", "products", "a.jsonl", "a.jsonl")
    assert result.exit_code == 130
    assert "1 acknowledged by the broker" in result.output
    assert "interrupted" in result.output
    assert result.output.count("products read") == 1


def test_publish_maps_columns_and_reads_standard_input(run: Run, publisher: RecordingPublisher) -> None:
    result = run(
        *("publish", "products", "-", "--format", "csv", "--delimiter", ";", "--map", "title=name"),
        *("--map", "product_id=sku", "--set", "currency=EUR", "--rest-as-attributes"),
        input="sku;name;colour\n7;Pan;red\n",
    )
    assert result.exit_code == 0
    (document,) = documents(publisher.sent)
    assert document["product_id"] == "7"
    assert document["title"] == "Pan"
    assert document["currency"] == "EUR"
    assert document["attributes"] == {"colour": "red"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.csv",), "nowhere.csv cannot be opened"),
        (("a.docx",), "say --format"),
        (("-",), "say --format"),
        (("-", "-", "--format", "jsonl"), "give - once"),
        (("a.jsonl", "--map", "titel=x"), "products have no field 'titel'"),
        (("a.jsonl", "--zone", "Mars"), "--zone 'Mars' is unknown"),
        (("a.jsonl", "--encoding", "klingon"), "--encoding 'klingon' is unknown"),
        (("a.jsonl", "--encoding", "utf-16"), "iconv"),
        (("a.jsonl", "--delimiter", ";;"), "takes one character"),
        (("a.jsonl", "--rejected", "a.jsonl"), "is the input itself"),
        (("a.jsonl", "a.jsonl", "--rejected", "r"), "--rejected names one file"),
    ],
)
def test_publish_refuses_a_call_that_cannot_be_meant_before_anything_is_sent(
    run: Run, publisher: RecordingPublisher, arguments: tuple[str, ...], said: str
) -> None:
    Path("a.jsonl").write_text(GOOD)
    result = run("publish", "products", *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert publisher.sent == []


def test_publish_sends_nothing_where_rejected_rows_could_not_go(
    run: Run, publisher: RecordingPublisher
) -> None:
    Path("a.jsonl").write_text(GOOD)
    result = run("publish", "products", "a.jsonl", "--rejected", "nodir/x.jsonl")
    assert result.exit_code == 1
    assert "0 products read" in result.output
    assert "stopped: nodir/x.jsonl cannot be written (No such file or directory)" in result.output
    assert publisher.sent == []


def test_the_broker_is_that_of_the_settings_or_else_of_the_stack_that_runs_here(tmp_path: Path) -> None:
    unset, given = Settings(), Settings(kafka=KafkaSettings(bootstrap_servers="kafka:9092"))
    assert kafka_settings(unset, tmp_path) == unset.kafka
    (tmp_path / "stack.json").write_text('{"kafka": "127.0.0.1:5555", "redis": "", "http": ""}')
    assert kafka_settings(unset, tmp_path).bootstrap_servers == "127.0.0.1:5555"
    assert kafka_settings(given, tmp_path).bootstrap_servers == "kafka:9092"
    (tmp_path / "stack.json").write_text("broken")
    assert kafka_settings(unset, tmp_path) == unset.kafka


def test_shop_writes_the_same_file_for_the_same_seed_and_start(
    run: Run, publisher: RecordingPublisher
) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        call = ("--products", "30", "--count", "40", "--start", "2026-01-05T08:00:00Z", "--out", name)
        result = run("shop", *call)
        assert result.exit_code == 0, result.output
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()
    kinds = {json.loads(line)["kind"] for line in Path("a.jsonl").read_text().splitlines()}
    assert {"product_upserted", "review_posted", "user_event"} <= kinds
    assert publisher.sent == []
    assert list(Path().glob("*.part")) == []


def test_shop_publishes_each_event_to_its_topic_under_its_key(
    run: Run, publisher: RecordingPublisher
) -> None:
    result = run("shop", "--products", "30", "--shoppers", "20", "--count", "50", "--rate", "5000")
    assert result.exit_code == 0
    topics = Topics.named()
    keys = {
        topics.products.name: "product_id",
        topics.reviews.name: "product_id",
        topics.events.name: "user_id",
    }
    assert {record.topic for record in publisher.sent} == set(keys)
    for record in publisher.sent:
        assert record.key == str(record.document[keys[record.topic]]).encode()
    assert f"{len(publisher.sent):,} acknowledged by the broker, 0 not" in result.output


def test_shop_sends_live_changes_outside_the_bulk_lane(run: Run, publisher: RecordingPublisher) -> None:
    run("shop", "--products", "20", "--no-history", "--count", "30")
    assert len(publisher.sent) == 50
    assert {record.headers for record in publisher.sent} == {()}


def test_shop_refuses_a_file_without_an_end(run: Run, publisher: RecordingPublisher) -> None:
    result = run("shop", "--rate", "5", "--out", "x.jsonl")
    assert result.exit_code == 2
    assert "say --count or --duration" in result.output


def test_schemas_export_writes_the_documents_under_the_names_of_the_settings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMSTREAM_NAMESPACE", "shop1.")
    result = run("schemas", "export", str(tmp_path / "out"))
    assert result.exit_code == 0
    document = json.loads((tmp_path / "out" / "asyncapi.json").read_text())
    assert document["channels"]["products"]["address"] == "shop1.catalog.products"
