"""From a shop's size to processes and nodes, by the model of app/capacity.py.

    plan(Shop(items=2_000_000, queries_per_second=50), Nodes())

Reads, writes  nothing
Never          knows a price: a cost is nodes times what the caller says that an hour of one costs
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.capacity import (
    CHANGES_A_SECOND,
    CPU_ENCODER_CORES,
    ENCODER_SHARE,
    EVENTS_A_SECOND,
    EVENTS_REDIS_CORES,
    FILE_COPIES,
    IMPORT_CPU_SECONDS_AN_ITEM,
    MEASURED_ITEMS,
    PARTITIONS,
    SERVICE_SECONDS,
    TOKENS_A_SECOND,
    Shop,
    index_disk_bytes,
    index_graph_seconds,
    index_memory_bytes,
    index_query_seconds,
    redis_bytes,
)

# Choices, not measurements.
#: Processes and cores are planned to be this busy: one may fail, and a backlog be caught up with.
BUSY = 0.5
#: Memory is planned to be this full.
FULL = 0.75


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
        graph_core_hours=index_graph_seconds(shop) / 3_600,
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
    """Shards until memory suffices, then copies until queries are answered.

    Not more shards for queries: each is asked every time, and half the items take more than half the time.
    """
    memory = index_memory_bytes(shop)
    changes = shop.changed_texts_per_second + shop.changed_prices_per_second
    writing = changes * IMPORT_CPU_SECONDS_AN_ITEM
    busy = BUSY * nodes.cores
    shards = max(_nodes_for(memory, nodes), math.floor(writing / busy) + 1)
    asking = shop.queries_per_second * index_query_seconds(shop, shards)
    copies = max(nodes.copies, math.ceil(asking / (shards * busy - writing)))
    return Part(
        "index",
        shards * copies,
        shards * copies,
        memory * copies,
        index_disk_bytes(shop) * copies,
        asking + writing * copies,
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
