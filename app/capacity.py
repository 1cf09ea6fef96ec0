"""What a shop of some size takes: memory, disk, seconds of a core. A model, fitted to what was measured.

Each constant says where it was measured. `python -m benchmarks --full capacity` holds those about the index
and Redis against sizes that they were not fitted on; what lies beyond, or runs on other machines than those
of benchmarks/results, is extrapolated, and the plan's notes (app/capacity_plan.py) say so.

Reads, writes  nothing
Never          reads the result files: a figure that has moved is to be looked at (tests/app/test_capacity.py)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adapters.index_port import Quantisation

# --- the index: Qdrant's engine with its graph (benchmarks/capacity_index.py, fitted at 10,000 and 20,000)
#: The smaller of these sizes.
FITTED_ITEMS = 10_000
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
IMPORT_CPU_SECONDS_AN_ITEM = 0.00024
#: Of a graph of 10,000 items, and how it grows up to 1,000,000.
GRAPH_CPU_SECONDS, GRAPH_GROWTH = 9.0, 1.31
#: Of a query in four dimensions over 10,000 items; how much more for twice as many (graphs); and for each
#: item (lists of words). Fitted at 10,000 and 1,000,000.
QUERY_CPU_SECONDS, QUERY_CPU_SECONDS_A_DOUBLING, QUERY_CPU_SECONDS_AN_ITEM = 0.0054, 0.0013, 28e-9
#: The slowest hundredth over the median, while nothing else ran.
QUERY_P99_OVER_P50 = 1.9
#: Opening it, its files in the page cache; fitted at 10,000 and 1,000,000.
START_CPU_SECONDS = 0.15
START_CPU_SECONDS_AN_ITEM = 9e-6
#: Up to here the index was measured.
MEASURED_ITEMS = 1_000_000

# --- Redis (benchmarks/capacity_items.py, fitted at 10,000 and 20,000 items) ---
DOCUMENT_BYTES = 1_780
REVIEW_BYTES = 403
SHOPPER_BYTES = 1_116
#: Sketch and counters of an item that 40 shoppers touched, and of one with all of its 128 (behaviour.json).
TOUCHED_BYTES: Mapping[int, float] = {40: 1_325, 128: 5_776}
#: Redis writes its file anew beside the old one.
FILE_COPIES = 2

# --- processes ---
#: behaviour.json: events/s of one process, and the cores that Redis used meanwhile.
EVENTS_A_SECOND, EVENTS_REDIS_CORES = 32_050, 0.563
#: prices.json: changes/s from Kafka to the index without an encoder, consumers and servers on two cores. No
#: process of `products` or `embeddings` was seen to do more.
CHANGES_A_SECOND = 3_680
#: embedding-rate.json: the consumer over its encoder alone (bf16, two cores; taken for the others as well).
ENCODER_SHARE = 0.898
#: Tokens/s of an encoder: fp32 as in compress.json (168 texts of 27 tokens), encoder.json, encoder-gpu.json.
Encoder = Literal["cpu", "cpu-bf16", "gpu"]
TOKENS_A_SECOND: Mapping[Encoder, float] = {"cpu": 4_716, "cpu-bf16": 11_298, "gpu": 1_112_173}
#: Both of the machine's, where there is no GPU.
CPU_ENCODER_CORES = 2
#: query.json, 10 queries/s: what the service adds to the index's own calls, nearly all of it Python's, on one
#: core.
SERVICE_SECONDS = 0.0037
PARTITIONS = 12


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


# --- memory and disk ---


def vector_bytes(shop: Shop, quantisation: Quantisation) -> float:
    """Of one dense vector as it is walked through."""
    if quantisation == "none":
        return NUMBER_BYTES * shop.dimensions
    return shop.dimensions + INT8_MORE_BYTES if quantisation == "int8" else math.ceil(shop.dimensions / 8)


def index_own_bytes(shop: Shop) -> float:
    """Anonymous memory of a process that has opened the index; quantised vectors are kept there."""
    dense = 0.0 if shop.quantisation == "none" else DENSE_VECTORS * vector_bytes(shop, shop.quantisation)
    return INDEX_OWN_BYTES + shop.items * (INDEX_OWN_BYTES_AN_ITEM + dense)


def index_walked_bytes(shop: Shop) -> float:
    """Files that searches walk through: they should stay in the page cache."""
    dense = DENSE_VECTORS * vector_bytes(shop, "none") if shop.quantisation == "none" else 0.0
    return shop.items * (dense + GRAPH_BYTES + SPARSE_BYTES)


def index_memory_bytes(shop: Shop) -> float:
    """Both together."""
    return index_own_bytes(shop) + index_walked_bytes(shop)


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
    """Seconds of a core for one query, on all nodes that share the items: each searches its own."""
    items = shop.items / nodes
    doublings = math.log2(max(1.0, items / FITTED_ITEMS))
    lists = QUERY_CPU_SECONDS_AN_ITEM * items
    return nodes * (QUERY_CPU_SECONDS + QUERY_CPU_SECONDS_A_DOUBLING * doublings + lists)


def index_graph_seconds(shop: Shop) -> float:
    """Seconds of a core until the graph of all items is built, on one node: less where they are several."""
    return GRAPH_CPU_SECONDS * math.pow(shop.items / FITTED_ITEMS, GRAPH_GROWTH)


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
