"""app/labels.py: rows become queries, and every bad one is named by line and field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.labels import Query, labels_of
from producers.rows import Row


def read(*rows: Mapping[str, Any]) -> list[Query]:
    found = labels_of(Row(number, "", values) for number, values in enumerate(rows, 1))
    assert found.problems == []
    return found.queries


def problems(*rows: Mapping[str, Any]) -> list[str]:
    return labels_of(Row(number, "", values) for number, values in enumerate(rows, 1)).problems


def test_pairs_of_one_item_are_one_query_and_what_is_no_match_is_passed_over() -> None:
    found = read(
        {"query_item": "a", "relevant_item": "b"},
        {"query_item": "a", "relevant_item": "c", "label": "1"},
        {"query_item": "a", "relevant_item": "d", "label": 0},
        {"query_item": "e", "relevant_item": ["f", "g"]},
    )
    assert found == [Query(frozenset({"b", "c"}), item="a"), Query(frozenset({"f", "g"}), item="e")]


def test_next_items_are_asked_for_by_shopper_or_by_history() -> None:
    found = read(
        {"user_id": "u", "next_item": "b", "history": ""},
        {"user_id": "u", "history": ["a", "b"], "next_item": "c"},
        {"history": "a|b", "next_item": "c|d"},
        {"user_id": 17, "next_item": 4},
    )
    assert found == [
        Query(frozenset({"b"}), user="u"),
        Query(frozenset({"c"}), history=("a", "b")),
        Query(frozenset({"c", "d"}), history=("a", "b")),
        Query(frozenset({"4"}), user="17"),
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"query_item": "a"}, "line 1: relevant_item is missing"),
        ({"user_id": "a", "relevant_item": "b"}, "line 1: next_item is missing"),
        ({"relevant_item": "b"}, "line 1: needs query_item"),
        ({"query_item": "a", "user_id": "u", "relevant_item": "b"}, "line 1: has query_item and user_id"),
        ({"query_item": "a", "relevant_item": []}, "line 1: relevant_item: List should have at least 1"),
        ({"query_item": "x" * 300, "relevant_item": "b"}, "line 1: query_item: "),
        ({"query_item": "a", "relevant_item": "b", "label": "perhaps"}, "line 1: label: "),
        ({"query_item": "a", "relevant_item": "a"}, "query_item 'a': its only relevant item is itself"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(row: dict[str, Any], says: str) -> None:
    (problem,) = problems(row)
    assert problem.startswith(says)


def test_what_could_not_be_read_is_said_and_the_rest_is_kept() -> None:
    found = labels_of(
        [Row(3, "{", problem="not JSON"), Row(4, "", {"query_item": "a", "relevant_item": "b"})]
    )
    assert found.problems == ["line 3: not JSON"]
    assert len(found.queries) == 1
    assert found.rows == 2


def test_one_file_asks_one_kind_of_question() -> None:
    mixed = ({"query_item": "a", "relevant_item": "b"}, {"user_id": "u", "next_item": "b"})
    assert problems(*mixed) == ["line 2: pairs and next items in one file: split it in two"]
