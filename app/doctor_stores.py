"""The doctor's checks of broker, topics, consumer groups and Redis; the list of all checks.

Reads   all of them
Writes  nothing
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adapters.kafka_admin import compare_topics, open_admin, shapes
from adapters.kafka_groups import GroupOffsets, group_members
from adapters.kafka_spans import spans
from adapters.redis_client import connect
from adapters.redis_nodes import RedisNodes, Vitals
from app import doctor, doctor_releases
from app.discovery import find_stack
from app.doctor import Check, Finding, clock
from app.doctor_releases import live_collection
from app.local import MINIMUM_REDIS
from app.runners import STATE_CONSUMERS, embeddings_group, state_group
from app.settings import Settings
from app.wiring import open_board, open_generations

#: More than this is said to lag, as the alert SimstreamLag does.
LAG_RECORDS = 5_000
MEMORY_WARNING, MEMORY_FAULT = 0.8, 0.95


def checks(settings: Settings, data_dir: Path, *, embedded: bool) -> dict[str, tuple[Check, str]]:
    """Every check by name, in the order in which one would look, and what to do when it cannot be made."""
    kafka = "is the broker up, and are SIMSTREAM_KAFKA__BOOTSTRAP_SERVERS and ..._OPTIONS (TLS, SASL) right?"
    redis = "is Redis up, and is SIMSTREAM_REDIS__URL right?"
    index = "is the index up, and are SIMSTREAM_QDRANT__URL and ..._API_KEY right?"
    releases = "is SIMSTREAM_RELEASES__URL right, and may this process read there?"
    return {
        "topics": (lambda: topics(settings), kafka),
        "redis": (lambda: redis_nodes(settings), redis),
        "state": (lambda: generations(settings), redis),
        "index": (lambda: doctor_releases.index_alias(settings), index),
        "releases": (lambda: doctor_releases.live_release(settings), releases),
        "rollouts": (lambda: doctor_releases.rollouts(settings), redis),
        "groups": (lambda: groups(settings, tells_members=not embedded), kafka),
        "service": (lambda: doctor.service(settings, data_dir), "ask it by hand: curl URL/health/ready"),
        "disk": (
            lambda: doctor.disks(settings, data_dir if embedded else None),
            "may this process read the folders that the settings name?",
        ),
        # An embedded stack is for trying: nobody's shoppers are in it.
        "keys": (lambda: [] if embedded else doctor.public_keys(settings), "read docs/personal-data.md"),
    }


def topics(settings: Settings) -> Iterator[Finding]:
    """Topics: that they exist, their cleanup, retention and sizes, partitions and copies."""
    admin, declared = open_admin(settings.kafka), list(settings.named_topics().declared())
    for one in compare_topics(admin, declared):
        yield Finding("topics", "fault", one.topic, one.finding, one.remedy)
    brokers, found = shapes(admin)
    for topic in declared:
        if topic.name not in found:
            continue
        shape = found[topic.name]
        if shape.partitions < settings.kafka.partitions:
            yield Finding(
                "topics",
                "warning",
                topic.name,
                f"{shape.partitions} partitions, SIMSTREAM_KAFKA__PARTITIONS is {settings.kafka.partitions}: "
                "no more processes than partitions share its work",
                f"kafka-topics --alter --topic {topic.name} --partitions {settings.kafka.partitions}, or set "
                "what there is; before a rebuild of a compacted topic read docs/architecture.md, Rebuild",
            )
        if shape.copies < min(brokers, 2):
            yield Finding(
                "topics",
                "warning",
                topic.name,
                f"one copy on {brokers} brokers: it is gone with one of them",
                "kafka-reassign-partitions: at least two copies, three with min.insync.replicas=2",
            )


def groups(settings: Settings, *, tells_members: bool) -> Iterator[Finding]:
    """Consumer groups: that somebody reads, how far behind, and that nothing was lost to retention.

    The embedded broker does not tell who is in a group; its readers live and end with it.
    """
    topics, generation = settings.named_topics(), open_generations(settings).live()
    changed = (topics.changed.name, topics.changed_bulk.name)
    read = {"products": (topics.products.name,), "reviews": (topics.reviews.name,)}
    read["behaviour"] = (topics.events.name,)
    wanted: dict[str, tuple[str, tuple[str, ...]]] = {
        state_group(settings, one, generation): (one, read[one]) for one in STATE_CONSUMERS
    }
    for collection in _written(settings):
        wanted[embeddings_group(settings, collection)] = ("embeddings", changed)
    members = group_members(settings.kafka, list(wanted))
    reach = spans(settings.kafka, [*(name for names in read.values() for name in names), *changed])
    for group, (consumer, names) in wanted.items():
        if tells_members and not members[group]:
            yield Finding(
                "groups",
                "fault",
                group,
                "nobody reads in it",
                f"start `simstream consume {consumer}` (or `simstream up`)",
            )
        with GroupOffsets(settings.kafka, group=group, topics=names) as offsets:
            commits = offsets.commits()
        behind = sum(
            max(0, reach[part].end - max(commit or 0, reach[part].start)) for part, commit in commits.items()
        )
        if behind > LAG_RECORDS:
            yield Finding(
                "groups",
                "warning",
                group,
                f"{behind} records behind",
                "docs/operations.md, SimstreamLag: wait for an import to end, or start more processes of it",
            )
        for part, commit in commits.items():
            if commit is not None and commit < reach[part].start:
                yield Finding(
                    "groups",
                    "fault",
                    f"{group}, {part.topic}[{part.number}]",
                    f"{reach[part].start - commit} records after its commit were removed before it read them",
                    "its consumer halts there: `simstream rebuild --from-log`, or publish them again; then a "
                    "longer retention",
                )


def _written(settings: Settings) -> set[str]:
    """The collections that somebody has to write."""
    live = live_collection(settings)
    written = {one.collection for one in open_board(settings).all() if one.written}
    return written if live is None else written | {live}


def redis_nodes(settings: Settings) -> Iterator[Finding]:
    """Redis: version, eviction, what it keeps, memory, clock, cluster."""
    nodes = RedisNodes(connect(settings.redis))
    nodes.ping()
    for node in nodes.vitals():
        yield from of_node(node)


def of_node(node: Vitals) -> Iterator[Finding]:
    """What is wrong with one node."""

    def found(severity: str, finding: str, remedy: str) -> Finding:
        return Finding("redis", "fault" if severity == "fault" else "warning", node.name, finding, remedy)

    if tuple(int(part) for part in node.version.split(".")[:2]) < MINIMUM_REDIS:
        yield found("fault", f"version {node.version}", "Redis 6.2 or newer is needed")
    if node.policy != "noeviction":
        yield found(
            "fault",
            f"maxmemory-policy is {node.policy}: it may remove state, and an event is counted twice then",
            "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in its configuration",
        )
    if not node.keeps_log:
        yield found(
            "fault",
            "it keeps no append-only file: a restart loses state",
            "redis-cli CONFIG SET appendonly yes, and the same in its configuration",
        )
    elif node.fsync == "no":
        yield found(
            "warning",
            "appendfsync is no: a crash of the machine may lose more than the 3 s that consumers read again",
            "redis-cli CONFIG SET appendfsync everysec",
        )
    if not node.log_written:
        yield found(
            "fault",
            "the last write or rewrite of its append-only file failed",
            "is its disk full? (redis-cli INFO persistence)",
        )
    share = node.used_bytes / max(1, node.allowed_bytes)
    if share > MEMORY_WARNING:
        yield found(
            "fault" if share > MEMORY_FAULT else "warning",
            f"{share:.0%} of its memory is in use; full, it refuses writes and consumers wait",
            "raise maxmemory, spread over a cluster, or `simstream rebuild --drop-retired`",
        )
    if node.cluster_ok is False:
        yield found("fault", "the cluster is not ok", "redis-cli CLUSTER INFO; are all slots served?")
    yield from clock("redis", node.name, ahead_seconds=node.ahead_seconds, within_seconds=node.within_seconds)


def generations(settings: Settings) -> Iterator[Finding]:
    """Generations of the state that nobody reads any more."""
    retired = open_generations(settings).retired()
    if retired:
        yield Finding(
            "state",
            "warning",
            f"generations {', '.join(map(str, retired))}",
            "they were left by a rebuild, and take memory until they are dropped",
            "`simstream rebuild --drop-retired`, once you are content with the live one",
        )


def is_embedded(settings: Settings, data_dir: Path) -> bool:
    """Whether the broker is that of the embedded stack in the folder."""
    stack = find_stack(data_dir)
    there = stack is not None and stack.kafka == settings.kafka.bootstrap_servers
    return there and (data_dir / "index").is_dir()
