from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from producers.shop import Mix, Shop
from schemas.events import (
    EVENT_MODELS,
    AspectShift,
    ItemChanged,
    ItemUpdated,
    OpinionInsight,
    PriceInsight,
    ReviewRemoved,
    StageTimes,
    UserErased,
)
from schemas.export import asyncapi, documents, event_schema, write_documents
from schemas.parsing import parse_event
from schemas.topics import Topic, Topics

DOCS = Path(__file__).parent.parent.parent / "docs" / "schemas"
SHOP = Shop(5, products=60, shoppers=30)


def shop_events() -> list[Any]:
    live = SHOP.stream(count=300, mix=Mix(user_event=10, delete=3, title=3))
    when = SHOP.start
    return [
        *SHOP.products(),
        *SHOP.reviews(),
        *list(SHOP.events())[:300],
        *live,
        ReviewRemoved(review_id="r", product_id="p", occurred_at=when),
        UserErased(erased_at=when),
        ItemChanged(product_id="p", dimensions=["content"], occurred_at=when),
        ItemUpdated(
            product_id="p",
            collection="items__a__1",
            dimensions=["content"],
            encoder_calls=1,
            stages=StageTimes(occurred_at=when, searchable_at=when),
        ),
        PriceInsight(product_id="p", outlier=True, price="9.90", evidence="dear", found_at=when),
        OpinionInsight(product_id="p", shifts=[AspectShift(aspect="fit", tendency="bad")], found_at=when),
    ]


def resolve(document: dict[str, Any], reference: str) -> Any:
    node: Any = document
    assert reference.startswith("#/"), reference
    for part in reference[2:].split("/"):
        node = node[part]
    return node


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    if isinstance(node, list):
        return [found for value in node for found in references(value)]
    return []


def test_docs_schemas_says_what_the_code_says() -> None:
    written = {path.name: path.read_bytes() for path in DOCS.iterdir()}
    assert written == documents(), "run: simstream schemas export docs/schemas"


def test_every_event_has_a_schema_that_is_valid_itself_and_requires_its_kind() -> None:
    for model in EVENT_MODELS:
        schema = event_schema(model)
        Draft202012Validator.check_schema(schema)
        assert "kind" in schema["required"]
        assert f"{schema['properties']['kind']['const']}.json" in documents()


def test_real_events_fit_the_schema_of_their_kind_and_every_kind_is_met() -> None:
    validators = {
        model.model_fields["kind"].default: Draft202012Validator(event_schema(model))
        for model in EVENT_MODELS
    }
    met = set()
    for event in shop_events():
        body = orjson.loads(event.model_dump_json())
        errors = [error.message for error in validators[body["kind"]].iter_errors(body)]
        assert errors == []
        met.add(body["kind"])
    assert met == set(validators)


@pytest.mark.parametrize(
    "change",
    [
        {"title": None},
        {"product_id": ""},
        {"product_id": "x" * 257},
        {"price": "19,90"},
        {"price": -1},
        {"currency": "eur"},
        {"revision": 1.5},
        {"attributes": {"a": {"b": 1}}},
        {"category": "A > B"},
        {"kind": "product_deleted"},
    ],
)
def test_the_schema_refuses_what_the_parser_refuses(change: dict[str, Any]) -> None:
    body = orjson.loads(next(SHOP.products()).model_dump_json())
    validator = Draft202012Validator(event_schema(EVENT_MODELS[0]))
    assert validator.is_valid(body)
    wrong = {**body, **change}
    assert not validator.is_valid(wrong)
    with pytest.raises(ValueError, match="field"):
        parse_event(orjson.dumps(wrong), EVENT_MODELS[0])


@pytest.mark.parametrize(
    "change",
    [
        {"category": None},
        {"attributes": None},
        {"attributes": {"a": 1, "b": True, "c": None, "d": ["x", 2]}},
        {"price": 19.9},
        {"brand": None},
        {"unknown": {"of": "tomorrow"}},
    ],
)
def test_the_schema_accepts_what_the_parser_accepts(change: dict[str, Any]) -> None:
    body = {**orjson.loads(next(SHOP.products()).model_dump_json()), **change}
    assert Draft202012Validator(event_schema(EVENT_MODELS[0])).is_valid(body)
    parse_event(orjson.dumps(body), EVENT_MODELS[0])


def test_the_asyncapi_document_has_a_channel_and_an_operation_for_every_topic() -> None:
    topics = Topics.named(namespace="shop1.")
    document = asyncapi(topics)
    assert document["asyncapi"] == "3.0.0"
    assert document["info"].keys() >= {"title", "version"}
    declared = {topic.name for topic in topics.declared() if not topic.name.endswith(".dlq")}
    assert {channel["address"] for channel in document["channels"].values()} == declared
    channels_used = {operation["channel"]["$ref"] for operation in document["operations"].values()}
    assert channels_used == {f"#/channels/{role}" for role in document["channels"]}
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = resolve(document, operation["channel"]["$ref"])
        for message in operation["messages"]:
            assert resolve(document, message["$ref"]) in channel["messages"].values()


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi(Topics.named())
    found = references(document)
    assert len(found) > 20
    for reference in found:
        resolve(document, reference)


def test_every_channel_names_its_key_its_messages_and_how_long_records_stay() -> None:
    topics = Topics.named()
    document = asyncapi(topics)
    for role, channel in document["channels"].items():
        topic: Topic = getattr(topics, role)
        assert f"Key: {topic.key}" in channel["description"]
        assert tuple(channel["messages"]) == topic.carries
        kafka = channel["bindings"]["kafka"]["topicConfiguration"]
        assert kafka["cleanup.policy"] == [topic.cleanup]
        assert kafka["retention.ms"] == topic.retention_ms
    keys = document["components"]["messages"]["UserEvent"]["bindings"]["kafka"]["key"]
    assert keys["description"] == "user_id"


def test_the_payload_schemas_inside_the_document_hold_for_real_events() -> None:
    document = asyncapi(Topics.named())
    checked = 0
    for event in shop_events():
        name = type(event).__name__
        schema = {**document, "$ref": f"#/components/schemas/{name}"}
        assert Draft202012Validator(schema).is_valid(orjson.loads(event.model_dump_json()))
        checked += 1
    assert checked > 500


def test_writing_makes_the_folder_and_says_what_it_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    written = write_documents(folder)
    assert sorted(path.name for path in written) == sorted(documents())
    assert all(orjson.loads(path.read_bytes()) for path in written)
