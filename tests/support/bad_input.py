"""Records for catalog.products, made by Hypothesis, the same in every run: good and purposely broken ones.

Reads   ProductUpserted's JSON Schema: what a field may be, and so what it may not
Writes  nothing
Never   asks the code under test whether a record is bad: each knows how it was broken, and what must be said
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from schemas.events import ProductUpserted
from schemas.fields import MAX_REVISION

T = TypeVar("T")
Event = dict[str, Any]

_SCHEMA = ProductUpserted.model_json_schema()
FIELDS: Mapping[str, Any] = _SCHEMA["properties"]
#: The model has a default for its kind; on the wire the kind chooses the model.
REQUIRED = (*_SCHEMA["required"], "kind")
KIND = "product_upserted"
#: Longer than this is drawn seldom: such records are large.
_HUGE = 10_000
_MARK = "(here)"

# Half a surrogate pair is no text.
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_TITLE = _TEXT.map("Lamp {}".format)
_NUMBER = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6, width=32)
_SCALAR = st.none() | st.booleans() | _NUMBER | _TEXT
_OBJECT = st.dictionaries(_TEXT, _SCALAR, max_size=3)
_ARRAY = st.lists(_SCALAR, max_size=3)


class Bad(NamedTuple):
    """One record that can never be applied: how it was broken, what its reason must say, and its bytes."""

    how: str
    says: str
    key: bytes
    value: bytes


def drawn(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """`count` examples, fewer where there are not so many; the same ones every time."""
    found: list[T] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(example: T) -> None:
        found.append(example)

    keep()
    return found


def good_events(count: int) -> list[Event]:
    """`count` products as shops send them, with ids of any characters."""
    optional: dict[str, st.SearchStrategy[Any]] = {
        "brand": st.none() | _TEXT,
        "category": st.lists(_TEXT, max_size=3),
        "description": st.none() | _TEXT,
        "attributes": st.dictionaries(_TEXT, _TEXT | st.booleans() | _NUMBER | st.lists(_TEXT), max_size=3),
        "price": st.integers(0, 10**9).map(lambda cents: f"{cents / 100:.2f}") | st.integers(0, 10**6),
        "currency": st.from_regex(r"[A-Z]{3}", fullmatch=True),
        "in_stock": st.booleans(),
        "group_id": _TITLE,
        "a field that nobody knows": _OBJECT | _ARRAY | _SCALAR,
    }
    required = {"title": _TITLE, "revision": st.integers(0, 99)}
    events = drawn(st.tuples(_TEXT, st.fixed_dictionaries(required, optional=optional)), count)
    assert len(events) == count
    return [_event(f"{number} {name}", **fields) for number, (name, fields) in enumerate(events)]


def bad_records(product_ids: Sequence[str], *, each: int) -> list[Bad]:
    """`each` records of every way to be bad (fewer where a way has not so many), ways mixed.

    They are about these products, under a revision that would win: had one been applied, it would show.
    """
    found = [drawn(way, each) for way in _ways(st.sampled_from(product_ids))]
    return [way[number] for number in range(each) for way in found if number < len(way)]


def body_of(event: Any) -> bytes:
    """An event as it travels. Python writes NaN and Infinity, which are not JSON, as they are."""
    return json.dumps(event, ensure_ascii=False).encode()


def _event(product_id: str, /, **fields: Any) -> Event:
    fixed = {"kind": KIND, "product_id": product_id, "occurred_at": "2026-11-24T08:00:00Z"}
    return {**fixed, "revision": 1_000, "title": "Never to be seen", **fields}


def _ways(ids: st.SearchStrategy[str]) -> list[st.SearchStrategy[Bad]]:
    """Every way to be bad."""

    def field(how: str, name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Bad]:
        def make(product_id: str, value: Any) -> Bad:
            body = body_of(_event(product_id, **{name: value}))
            return Bad(how, f"field '{name}", product_id.encode(), body)

        return st.builds(make, ids, values)

    def body(how: str, says: str, bodies: st.SearchStrategy[bytes]) -> st.SearchStrategy[Bad]:
        return st.builds(lambda product_id, value: Bad(how, says, product_id.encode(), value), ids, bodies)

    def title(how: str, spoilt: st.SearchStrategy[bytes]) -> st.SearchStrategy[Bad]:
        """Bytes that have no place in a text, behind some that have."""

        def make(product_id: str, text: str, wrong: bytes) -> Bad:
            good = body_of(_event(product_id, title=text + _MARK))
            return Bad(how, "Invalid JSON", product_id.encode(), good.replace(_MARK.encode(), wrong))

        return st.builds(make, ids, _TEXT, spoilt)

    def key(how: str, says: str, keys: st.SearchStrategy[bytes]) -> st.SearchStrategy[Bad]:
        return st.builds(
            lambda product_id, wrong: Bad(how, says, wrong, body_of(_event(product_id))), ids, keys
        )

    def without(product_id: str, name: str) -> Bad:
        event = {field: value for field, value in _event(product_id).items() if field != name}
        return Bad("missing", f"field '{name}' is missing", product_id.encode(), body_of(event))

    def cut(product_id: str, share: float) -> Bad:
        whole = body_of(_event(product_id))
        return Bad("cut off", "Invalid JSON", product_id.encode(), whole[: int(len(whole) * share)])

    def ahead(product_id: str, when: datetime) -> Bad:
        event = _event(product_id, revision=None, occurred_at=when.isoformat())
        return Bad("future", "field 'occurred_at'", product_id.encode(), body_of(event))

    lengths = [(name, most) for name, one in FIELDS.items() if 0 < (most := _longest(one)) <= _HUGE]
    years = st.datetimes(datetime(2900, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
    return [
        body("no JSON", "Invalid JSON", st.binary(max_size=200).filter(lambda text: not _is_json(text))),
        body("no object", "the message", (_ARRAY | _SCALAR).map(body_of)),
        body("nested", "recursion limit", st.integers(250, 5_000).map(_nested)),
        st.builds(cut, ids, st.floats(0, 0.999)),
        title(
            "no UTF-8", st.sampled_from([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2"])
        ),
        title("half a pair", st.integers(0xD800, 0xDFFF).map(lambda code: b"\\u%04x" % code)),
        title("control character", st.integers(0, 31).map(lambda code: bytes([code]))),
        st.builds(without, ids, st.sampled_from(REQUIRED)),
        st.sampled_from(REQUIRED).flatmap(lambda name: field("null", name, st.none())),
        *(field("wrong type", name, _other_types(name)) for name in FIELDS),
        st.sampled_from(lengths).flatmap(lambda one: field("too long", one[0], _longer(one[1]))),
        field("unknown kind", "kind", _TEXT | st.sampled_from(["review_posted", "item_changed", "product"])),
        field("blank", "title", st.text(st.sampled_from(" \t\n\r\u00a0\u2003\u3000"), max_size=20)),
        field("revision", "revision", st.integers(max_value=-1) | st.integers(MAX_REVISION + 1, 10**30)),
        field("revision", "revision", _TEXT | st.booleans() | st.just(1.5)),
        field("price", "price", st.sampled_from([float("nan"), float("inf"), "NaN", "Infinity", "1e999"])),
        field(
            "price", "price", st.floats(max_value=-0.01) | st.from_regex(r"[0-9]+,[0-9]{2}", fullmatch=True)
        ),
        field("currency", "currency", _TEXT.filter(lambda text: len(text) != 3)),
        field("time", "occurred_at", _TEXT.map("on {}".format) | st.datetimes().map(datetime.isoformat)),
        field("attributes", "attributes", st.dictionaries(_TEXT, _OBJECT, min_size=1, max_size=3)),
        st.builds(ahead, ids, years),
        key("another key", "the record's key is", _TEXT.map(lambda text: f"another {text}".encode())),
        key("no text as key", "the record's key is not UTF-8", st.binary(max_size=20).map(b"\xff".__add__)),
        key("long key", "the record's key", st.integers(257, 400).map(lambda length: b"k" * length)),
    ]


def huge_records(product_ids: Sequence[str], count: int) -> list[Bad]:
    """Too much for our own limits, though not for the topic's."""
    (allowed,) = {length for schema in FIELDS.values() if (length := _longest(schema)) > _HUGE}
    return drawn(st.builds(_described, st.sampled_from(product_ids), _longer(allowed)), count)


def large_records(product_id: str) -> list[Bad]:
    """2 MB each: larger than the topic's limit, unless the producer compresses, the first one well."""
    words = [Random(number).randbytes(4).hex() for number in range(3_000)]
    texts = (" ".join(Random(1).choices(words, k=230_000)), "x" * 2_000_000)
    return [_described(product_id, text) for text in texts]


def _described(product_id: str, text: str) -> Bad:
    body = body_of(_event(product_id, description=text))
    return Bad("huge", "field 'description'", product_id.encode(), body)


def _types(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a field may have."""
    if "anyOf" not in schema:
        return {schema["type"]}
    return {name for one in schema["anyOf"] for name in _types(one)}


def _longest(schema: Mapping[str, Any]) -> int:
    """How many characters a field may have; 0 where it is no text, or its pattern says."""
    return max(int(one.get("maxLength", 0)) for one in [schema, *schema.get("anyOf", [])])


def _other_types(name: str) -> st.SearchStrategy[Any]:
    """Values of types that a field may not have. Text and numbers pass for each other here and there."""
    allowed = _types(FIELDS[name])
    others: dict[str, st.SearchStrategy[Any]] = {"object": _OBJECT, "array": _ARRAY}
    if allowed <= {*others, "null"}:
        others |= {"string": _TEXT, "number": _NUMBER}
    return st.one_of([values for kind, values in others.items() if kind not in allowed])


def _longer(length: int) -> st.SearchStrategy[str]:
    """Texts longer than that: a few letters again and again, for whole ones would take minutes to draw."""
    letters = st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1, max_size=5)
    return letters.map(lambda word: word * (length // len(word) + 1))


def _nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
