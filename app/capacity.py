"""What a shop of some size needs: memory, disk, processes, nodes. A model, fitted to what was measured.

    plan(Shop(items=2_000_000, queries_per_second=50), Nodes())

Each constant says where it was measured. `python -m benchmarks --full capacity` holds those about the index
and Redis against sizes that they were not fitted on; what lies beyond, or runs on other machines than those
of benchmarks/results, is extrapolated, and the plan's notes say so.

Reads, writes  nothing
Never          knows a price: a cost is nodes times what the caller says that an hour of one costs
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from adapters.index_port import Quantisation

# --- the index: Qdrant's engine with its graph (benchmarks/capacity_index.py, fitted at 10,000 and 20,000) ---
#: Memory of the process's own (anonymous): of one that has opened the index and was asked some hundred times.
INDEX_OWN_BYTES = 8_900_000
INDEX_OWN_BYTES_AN_ITEM = 2_150
#: The two dense vectors of an item, content and reviews: room is taken for both, also without reviews.
DENSE_VECTORS = 2
NUMBER_BYTES = 4
#: A quantised vector beside its original: 8 bits a number and one number more, or a bit a number
#: (vectors.json: 389 and 50 bytes of 384 numbers, in steps of pages).
INT8_MORE_BYTES = 4
#: The graph, for an item with a content vector, and reviews on every third.
GRAPH_BYTES = 76
#: Inverted lists and vectors of the sparse dimensions: about 200 grams of a text, and the shoppers.
SPARSE_BYTES = 3_190
PAYLOAD_BYTES = 1_610
#: The write-ahead log: an item takes so much, until it is cut.
LOG_BYTES_AN_ITEM = 6_120
LOG_BYTES_MOST = 59_000_000
#: While importing, before there is a graph: memory of its own.
IMPORT_OWN_BYTES = 32_000_000
IMPORT_OWN_BYTES_AN_ITEM = 7_740
#: Seconds of a core.
IMPORT_CPU_SECONDS_AN_ITEM = 0.00057
GRAPH_CPU_SECONDS_AN_ITEM = 0.0023
QUERY_CPU_SECONDS = 0.0120
QUERY_CPU_SECONDS_AN_ITEM = 0.276e-6
#: The slowest hundredth over the median, while nothing else ran.
QUERY_P99_OVER_P50 = 1.28
#: Opening it, its files in the page cache.
START_CPU_SECONDS = 0.18
START_CPU_SECONDS_AN_ITEM = 13e-6
#: Up to here the index was measured.
MEASURED_ITEMS = 0

# --- Redis (benchmarks/capacity_items.py, fitted at 10,000 and 20,000 items) ---
DOCUMENT_BYTES = 1_780
REVIEW_BYTES = 403
SHOPPER_BYTES = 1_116
#: Sketch and counters of an item that 40 shoppers touched, and of one with all of its 128 (behaviour.json).
TOUCHED_BYTES: Mapping[int, float] = {40: 1_325, 128: 5_776}
#: Redis writes its file anew beside the old one.
FILE_COPIES = 2

# --- processes ---
#: behaviour.json: events/s of one process, the cores that it and Redis used meanwhile.
EVENTS_A_SECOND, EVENTS_CORES, EVENTS_REDIS_CORES = 15_310, 0.765, 0.624
#: prices.json: changes/s from Kafka to the index without an encoder, consumers and servers on two cores. No
#: process of `products` or `embeddings` was seen to do more.
CHANGES_A_SECOND = 1_294
#: embedding-rate.json: the consumer over its encoder alone (fp32, two cores; taken for the others as well).
ENCODER_SHARE = 0.795
#: Tokens/s of an encoder: embedding-rate.json (42.87 texts of 110 tokens), encoder.json, encoder-gpu.json.
Encoder = Literal["cpu", "cpu-bf16", "gpu"]
TOKENS_A_SECOND: Mapping[Encoder, float] = {"cpu": 4_716, "cpu-bf16": 11_298, "gpu": 1_112_173}
#: Both of the machine's, where there is no GPU.
CPU_ENCODER_CORES = 2
#: query.json: what the service adds to the index's own calls, nearly all of it Python's, on one core.
SERVICE_SECONDS = 0.00319
PARTITIONS = 12

# --- choices, not measurements ---
#: Processes and cores are planned to be this busy: one may fail, and a backlog be caught up with.
BUSY = 0.5
#: Memory is planned to be this full.
FULL = 0.75
#: Beyond so many more nodes do not help: each asks once for every query.
MOST_NODES = 10_000


@dataclass(frozen=True, slots=True)
class Shop:
    """How large, and how much happens. Rates are at the busiest time."""

    items: int
    dimensions: int = 384
    quantisation: Quantisation = "none"
    reviews_per_item: float = 4 / 3
    #: Share of items that somebody interacted with, and shoppers that the sketch of such a one keeps.
    touched: float = 0.5
    shoppers_kept: int = 40
    shoppers: int = 0
    tokens_per_text: float = 110
    events_per_second: float = 0
    changed_texts_per_second: float = 0
    changed_prices_per_second: float = 0
    queries_per_second: float = 0
    encoder: Encoder = "cpu"

    def __post_init__(self) -> None:
        """Raises ValueError for what no shop is."""
        for name in ("items", "dimensions", "tokens_per_text"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0 (got {getattr(self, name)})")
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, str) and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number from 0 (got {value})")


@dataclass(frozen=True, slots=True)
class Nodes:
    """A machine that parts run on, and how many times the index and Redis are there."""

    cores: int = 4
    memory_gib: float = 16.0
    copies: int = 1
    price_per_hour: float | None = None
    price_per_gpu_hour: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for what no node is."""
        if self.cores < 1 or not self.memory_gib > 0 or self.copies < 1:
            raise ValueError("a node has cores, memory, and is there at least once")


class Part(NamedTuple):
    """One part of a plan. Memory and disk in bytes, of all its processes or copies together."""

    name: str
    processes: int
    nodes: int
    memory_bytes: float
    disk_bytes: float
    cores: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What is needed. `fill_hours` is how long the encoders planned take for all texts at full speed."""

    parts: Sequence[Part]
    worker_nodes: int
    gpus: int
    fill_hours: float
    graph_core_hours: float
    cost_per_hour: float | None
    notes: Sequence[str]


# --- memory and disk ---


def vector_bytes(shop: Shop, quantisation: Quantisation) -> float:
    """Of one dense vector as it is walked through."""
    if quantisation == "none":
        return NUMBER_BYTES * shop.dimensions
    return shop.dimensions + INT8_MORE_BYTES if quantisation == "int8" else math.ceil(shop.dimensions / 8)


def index_own_bytes(shop: Shop) -> float:
    """Anonymous memory of a process that has opened the index."""
    return INDEX_OWN_BYTES + INDEX_OWN_BYTES_AN_ITEM * shop.items


def index_walked_bytes(shop: Shop) -> float:
    """Files that searches walk through: they should stay in the page cache."""
    dense = DENSE_VECTORS * vector_bytes(shop, shop.quantisation)
    return shop.items * (dense + GRAPH_BYTES + SPARSE_BYTES)


def index_disk_bytes(shop: Shop) -> float:
    """The index's folder."""
    kept = DENSE_VECTORS * vector_bytes(shop, "none")
    if shop.quantisation != "none":
        kept += DENSE_VECTORS * vector_bytes(shop, shop.quantisation)
    log = min(LOG_BYTES_MOST, LOG_BYTES_AN_ITEM * shop.items)
    return shop.items * (kept + GRAPH_BYTES + SPARSE_BYTES + PAYLOAD_BYTES) + log


def import_own_bytes(shop: Shop) -> float:
    """Anonymous memory of the process that has imported all items, until it builds the graph or ends."""
    return IMPORT_OWN_BYTES + IMPORT_OWN_BYTES_AN_ITEM * shop.items


def index_query_seconds(shop: Shop, nodes: int = 1) -> float:
    """Seconds of a core for one query, on all nodes that share the items together."""
    return QUERY_CPU_SECONDS * nodes + QUERY_CPU_SECONDS_AN_ITEM * shop.items


def index_start_seconds(shop: Shop) -> float:
    """Seconds of a core until an index that was closed in order is open."""
    return START_CPU_SECONDS + START_CPU_SECONDS_AN_ITEM * shop.items


def redis_bytes(shop: Shop) -> Mapping[str, float]:
    """Redis's data by what it is, without its own overhead."""
    (few, little), (most, much) = TOUCHED_BYTES.items()
    sketch = little + (much - little) * (shop.shoppers_kept - few) / (most - few)
    return {
        "documents": DOCUMENT_BYTES * shop.items,
        "reviews": REVIEW_BYTES * shop.reviews_per_item * shop.items,
        "sketches": max(0.0, sketch) * shop.touched * shop.items,
        "shoppers": SHOPPER_BYTES * shop.shoppers,
    }


# --- the plan ---


def plan(shop: Shop, nodes: Nodes) -> Plan:
    """What the shop needs, on nodes of this kind."""
    changes = shop.changed_texts_per_second + shop.changed_prices_per_second
    encoded = _texts_a_second(shop)
    # Of a process of `embeddings`: the share of its time that texts take, and what changes without one take.
    embedding = shop.changed_texts_per_second / encoded + shop.changed_prices_per_second / CHANGES_A_SECOND
    encoders = _busy(embedding)
    gpu = shop.encoder == "gpu"
    tokens = shop.changed_texts_per_second * shop.tokens_per_text
    gpus = max(1, _busy(tokens / (TOKENS_A_SECOND["gpu"] * ENCODER_SHARE))) if gpu else 0
    services = _busy(shop.queries_per_second * SERVICE_SECONDS)
    behaving = _busy(shop.events_per_second / EVENTS_A_SECOND)
    workers = [
        _workers("products", _busy(changes / CHANGES_A_SECOND)),
        _workers("reviews", 1),
        _workers("behaviour", behaving),
        _workers("embeddings", encoders, 1 if gpu else CPU_ENCODER_CORES),
        _workers("service", services),
    ]
    stores = [_index(shop, nodes), _redis(shop, nodes)]
    on_workers = workers if not gpu else [one for one in workers if one.name != "embeddings"]
    worker_nodes = math.ceil(sum(one.cores for one in on_workers) / nodes.cores)
    plain = worker_nodes + sum(one.nodes for one in stores)
    return Plan(
        parts=[*stores, *workers],
        worker_nodes=worker_nodes,
        gpus=gpus,
        fill_hours=shop.items / (encoders * encoded) / 3_600,
        graph_core_hours=shop.items * GRAPH_CPU_SECONDS_AN_ITEM / 3_600,
        cost_per_hour=_cost(plain, gpus, nodes),
        notes=_notes(shop, {one.name: one for one in (*stores, *workers)}),
    )


def _texts_a_second(shop: Shop) -> float:
    """Of one process of `embeddings` that does nothing else."""
    tokens = TOKENS_A_SECOND[shop.encoder] * ENCODER_SHARE
    return min(CHANGES_A_SECOND, tokens / shop.tokens_per_text)


def _busy(share: float) -> int:
    """How many are needed where so many would be busy all the time; one at least."""
    return max(1, math.ceil(share / BUSY))


def _workers(name: str, processes: int, cores: int = 1) -> Part:
    return Part(name, processes, 0, 0.0, 0.0, float(processes * cores))


def _index(shop: Shop, nodes: Nodes) -> Part:
    memory = index_own_bytes(shop) + index_walked_bytes(shop)
    changes = shop.changed_texts_per_second + shop.changed_prices_per_second
    count = _nodes_for(memory, nodes)
    while True:
        # Each node searches its own share for every query: what does not depend on items comes once a node.
        queries = shop.queries_per_second * index_query_seconds(shop, count) / nodes.copies
        cores = queries + changes * IMPORT_CPU_SECONDS_AN_ITEM
        more = max(count, math.ceil(cores / BUSY / nodes.cores))
        if more == count or count > MOST_NODES:
            break
        count = more
    copies = nodes.copies
    return Part(
        "index",
        count * copies,
        count * copies,
        memory * copies,
        index_disk_bytes(shop) * copies,
        cores * copies,
    )


def _redis(shop: Shop, nodes: Nodes) -> Part:
    data = sum(redis_bytes(shop).values())
    cores = shop.events_per_second / EVENTS_A_SECOND * EVENTS_REDIS_CORES
    # A Redis works on one core, so a node of its own for each, and its memory.
    count = max(_nodes_for(data, nodes), _busy(cores))
    copies = nodes.copies
    return Part(
        "redis", count * copies, count * copies, data * copies, data * FILE_COPIES * copies, cores * copies
    )


def _nodes_for(memory_bytes: float, nodes: Nodes) -> int:
    return max(1, math.ceil(memory_bytes / (FULL * nodes.memory_gib * 2**30)))


def _cost(plain: int, gpus: int, nodes: Nodes) -> float | None:
    """None where a price is missing."""
    if nodes.price_per_hour is None or (gpus and nodes.price_per_gpu_hour is None):
        return None
    return plain * nodes.price_per_hour + gpus * (nodes.price_per_gpu_hour or 0.0)


def _notes(shop: Shop, parts: Mapping[str, Part]) -> list[str]:
    """What to know before believing the plan."""
    notes = []
    if shop.items > MEASURED_ITEMS:
        notes.append(
            f"the index was measured up to {MEASURED_ITEMS:,} items: memory and disk of more go by a line, "
            "and the time of a query is extrapolated"
        )
    if parts["index"].nodes > 1:
        notes.append(
            "an index on several nodes is a Qdrant server's: measured was its engine within one process"
        )
    notes += [
        f"{name}: {parts[name].processes} processes want more than the {PARTITIONS} partitions of a topic"
        for name in ("products", "behaviour", "embeddings")
        if parts[name].processes > PARTITIONS
    ]
    if shop.encoder != "cpu":
        notes.append(
            f"that `embeddings` keeps {ENCODER_SHARE:.0%} of its encoder's speed was measured on a processor "
            "without bf16 alone, never with a GPU"
        )
    if shop.quantisation != "none":
        notes.append("quantised: of the originals, pages beside what is counted here are read from disk")
    notes.append(
        "rates are of two cores with all servers on them; not in the plan: Kafka, the trainer, monitoring"
    )
    return notes
