"""What reviewers say about items, as it was heard last; which head hears; and what was last published of it.

Reads, writes  `{namespace}opinions-item:{id}:heard`: a hash of the mark of the texts that were heard, the
               head that heard them, the figures (JSON), what they come to in a word each (`terms`), and what
               was heard in each review (JSON, compressed);
               `{namespace}opinions-head`; `{namespace}insights:opinions`, a hash, one field per item;
               `{namespace}opinions-owed`, a set: items that the index has to hear of once more
Never          hears, or decides what has shifted

It belongs to no generation of the item state: it is heard again from the texts whenever they, or the head,
are others than those it was heard from, and a rebuild has the same texts under the same mark.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from adapters.redis_client import item_key
from adapters.redis_nodes import RedisNodes
from adapters.redis_walk import item_ids
from schemas.opinions import ItemOpinions, KnownOpinions, Opinion, Tendency, opinion_terms, tendencies

#: The field with what reviewers come to, one term a line: read with the rest of an item's state.
TERMS = "terms"


def opinions_key(namespace: str, product_id: str) -> str:
    """The key of what was heard of an item, on the node of its other keys."""
    return item_key(f"{namespace}opinions-", product_id, "heard")


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard in one review; `mark` names the text it was heard in."""

    mark: str
    opinions: Sequence[Opinion]


@dataclass(frozen=True, slots=True)
class KeptOpinions:
    """What is kept of an item. `mark` names the set of texts it was heard in."""

    mark: str
    head: str
    item: ItemOpinions
    heard: Mapping[str, Heard]


class OpinionStore:
    """Implements schemas.opinions.OpinionReader. Thread-safe; raises Transient when Redis is away."""

    def __init__(self, *, nodes: RedisNodes, namespace: str = "") -> None:
        self._nodes = nodes
        self._namespace = namespace
        self._head = f"{namespace}opinions-head"
        self._said = f"{namespace}insights:opinions"
        self._owed = f"{namespace}opinions-owed"

    def of(self, product_id: str) -> KnownOpinions:
        """See the protocol."""
        key = opinions_key(self._namespace, product_id)
        with self._nodes.calling("reading opinions"):
            raw = cast("bytes | None", self._nodes.of(key).hget(key, "item"))
        return KnownOpinions(self.head(), None if raw is None else ItemOpinions.model_validate_json(raw))

    def head(self) -> str | None:
        """The head that is live."""
        with self._nodes.calling("reading which head is live"):
            raw = cast("bytes | None", self._nodes.of(self._head).get(self._head))
        return None if raw is None else raw.decode()

    def set_head(self, name: str | None) -> None:
        """Make a head the live one; None: nobody listens any more."""
        with self._nodes.calling("writing which head is live"):
            node = self._nodes.of(self._head)
            if name is None:
                node.delete(self._head)
            else:
                node.set(self._head, name)

    def made_from(self, product_ids: Sequence[str]) -> list[tuple[str | None, str | None]]:
        """Of each item the mark of the texts that were heard, and the head; None where nothing was."""
        keys = [opinions_key(self._namespace, one) for one in product_ids]
        answers: list[tuple[str | None, str | None]] = [(None, None)] * len(keys)
        with self._nodes.calling("reading what opinions were made from"):
            for node, positions in self._nodes.by_node(keys):
                pipe = node.pipeline(transaction=False)
                for position in positions:
                    pipe.hmget(keys[position], ["mark", "head"])
                for position, (mark, head) in zip(positions, pipe.execute(), strict=True):
                    answers[position] = mark and mark.decode(), head and head.decode()
        return answers

    def kept(self, product_id: str) -> KeptOpinions | None:
        """Everything that is kept of an item."""
        key = opinions_key(self._namespace, product_id)
        with self._nodes.calling("reading opinions"):
            fields = ["mark", "head", "item", "heard"]
            row = cast("list[bytes | None]", self._nodes.of(key).hmget(key, fields))
        mark, head, item, heard = row
        if mark is None or head is None or item is None or heard is None:
            return None
        return KeptOpinions(
            mark.decode(), head.decode(), ItemOpinions.model_validate_json(item), _unpacked(heard)
        )

    def keep(self, product_id: str, found: KeptOpinions) -> None:
        """Put down what was heard."""
        key = opinions_key(self._namespace, product_id)
        with self._nodes.calling("writing opinions"):
            values: dict[str, str | bytes] = {
                "mark": found.mark,
                "head": found.head,
                "item": found.item.model_dump_json(exclude_none=True),
                "heard": _packed(found.heard),
                TERMS: "\n".join(opinion_terms(tendencies(found.item))),
            }
            self._nodes.of(key).hset(key, mapping=cast("Any", values))

    def drop(self, product_id: str) -> None:
        """Forget what was heard of an item."""
        key = opinions_key(self._namespace, product_id)
        with self._nodes.calling("removing opinions"):
            self._nodes.of(key).delete(key)

    def drop_all(self) -> int:
        """Forget what was heard of every item; of how many."""
        dropped = 0
        for ids in item_ids(self._nodes, f"{self._namespace}opinions-", "heard"):
            for product_id in ids:
                self.drop(product_id)
                dropped += 1
        return dropped

    # --- what was published -------------------------------------------------------------------------

    def said(self, product_ids: Sequence[str]) -> list[dict[str, Tendency]]:
        """What was last published of each item, by aspect."""
        if not product_ids:
            return []
        with self._nodes.calling("reading what was said of opinions"):
            found = cast(
                "list[bytes | None]", self._nodes.of(self._said).hmget(self._said, list(product_ids))
            )
        return [{} if one is None else json.loads(one) for one in found]

    def remember(self, product_id: str, tendencies: Mapping[str, Tendency]) -> None:
        """Put down what was published."""
        with self._nodes.calling("remembering what was said of opinions"):
            node = self._nodes.of(self._said)
            if tendencies:
                node.hset(self._said, product_id, json.dumps(dict(tendencies), sort_keys=True))
            else:
                node.hdel(self._said, product_id)

    def owe(self, product_id: str) -> None:
        """The index is to hear of the item again, whether or not anything shifts."""
        with self._nodes.calling("putting down which items the index has to hear of"):
            self._nodes.of(self._owed).sadd(self._owed, product_id)

    def owed(self, product_ids: Sequence[str]) -> list[bool]:
        """Of which of these items the index has still to hear."""
        if not product_ids:
            return []
        with self._nodes.calling("asking which items the index has to hear of"):
            answers = self._nodes.of(self._owed).smismember(self._owed, list(product_ids))
        return [bool(one) for one in cast("list[int]", answers)]

    def paid(self, product_id: str) -> None:
        """It has heard of the item."""
        with self._nodes.calling("putting down which items the index has heard of"):
            self._nodes.of(self._owed).srem(self._owed, product_id)

    def run_id(self) -> str:
        """Names this incarnation of Redis; a new one may have lost its last seconds."""
        return self._nodes.run_id()


def _packed(heard: Mapping[str, Heard]) -> bytes:
    rows = {review: [one.mark, [list(opinion) for opinion in one.opinions]] for review, one in heard.items()}
    return zlib.compress(json.dumps(rows, sort_keys=True, ensure_ascii=False).encode(), 6)


def _unpacked(body: bytes) -> dict[str, Heard]:
    rows = json.loads(zlib.decompress(body))
    return {
        review: Heard(mark, [Opinion(*opinion) for opinion in opinions])
        for review, (mark, opinions) in rows.items()
    }
