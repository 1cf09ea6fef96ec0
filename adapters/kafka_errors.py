"""What errors of Kafka mean: which pass by themselves, which never do, and the way out of those.

Reads, writes  nothing
Never          asks the client's `retriable()`: outside of transactions that is False of every error
"""

from __future__ import annotations

import logging

from confluent_kafka import KafkaError

from schemas.errors import Halt

log = logging.getLogger(__name__)

# librdkafka's own errors, which its Python client spells as private names.
END_OF_PARTITION: int = KafkaError._PARTITION_EOF  # noqa: SLF001
#: No offset to go on from, by the client or by the broker: what was to be read is not in the log.
OUTSIDE_THE_LOG: frozenset[int] = frozenset(
    {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001
)
#: The same call may work in a moment: a broker starts or is away, a leader, coordinator or controller moves.
#: An unknown topic is none of these: librdkafka has waited half a minute before it says so.
PASSING: frozenset[int] = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._DESTROY_BROKER,  # noqa: SLF001
        KafkaError._NODE_UPDATE,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._RETRY,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._UNKNOWN_BROKER,  # noqa: SLF001
        KafkaError._WAIT_CACHE,  # noqa: SLF001
        KafkaError._WAIT_COORD,  # noqa: SLF001
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.ELIGIBLE_LEADERS_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.LISTENER_NOT_FOUND,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.PREFERRED_LEADER_NOT_AVAILABLE,
        KafkaError.REASSIGNMENT_IN_PROGRESS,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.STALE_BROKER_EPOCH,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
#: Errors of a poll that say "never", each with what to do.
_REFUSALS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant this principal READ on the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant this principal READ on the consumer group",
    KafkaError.SASL_AUTHENTICATION_FAILED: "check the credentials in SIMSTREAM_KAFKA__OPTIONS",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "create the topics with `simstream topics`",
}


def passes(error: KafkaError) -> bool:
    """Whether the same call may work in a moment."""
    return not error.fatal() and error.code() in PASSING


def refuse_final(error: KafkaError, where: str) -> None:
    """Raises Halt, naming the way out, for an error of a poll that never passes; any other is said.

    Everything else (a leader moved, a poll came too late, a connection broke) librdkafka mends itself.
    """
    code = error.code()
    if code in _REFUSALS:
        raise Halt(f"Kafka refused {where}: {error.str()}; {_REFUSALS[code]}")
    if error.fatal():
        raise Halt(f"the Kafka consumer cannot go on: {error.str()}; restart")
    log.warning("kafka_poll_error where=%s code=%s reason=%s", where, error.name(), error.str())
