"""Kafka for producers: settings, the record, the publisher. Consumers: adapters/kafka_reader.py.

Reads   nothing
Writes  whatever it is handed, to the topic it is told
Never   uses librdkafka's unsafe defaults: idempotence and acks=all are on, and keys are partitioned with
        murmur2 as Java's clients do (librdkafka's own default splits one product over two partitions)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self
from weakref import WeakSet

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from pydantic import Field, field_validator

from adapters import tracing
from adapters.metrics import PUBLISHER_QUEUE_RECORDS, UNDELIVERED_RECORDS_TOTAL
from schemas.errors import Halt
from schemas.events import Frozen

log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, bytes]]
Acknowledge = Callable[[Exception | None], None]
Delivered = Callable[[KafkaError | None, Message], None]

#: What simstream's promises rest on; SIMSTREAM_KAFKA__OPTIONS may not change these.
PROTECTED = frozenset(
    {
        "bootstrap.servers",
        "group.id",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "partition.assignment.strategy",
        "enable.idempotence",
        "acks",
        "partitioner",
        "isolation.level",
        "transactional.id",
    }
)
#: The client lets large records through; each topic's max.message.bytes is the limit that counts.
CLIENT_MAX_BYTES = 16 * 1024 * 1024


_CONSUMER_OPTIONS = ("session.", "heartbeat.", "fetch.", "max.poll.", "group.", "queued.")


class KafkaSettings(Frozen):
    """Where Kafka is, and how to speak to it. `options` go to librdkafka as they are: TLS, SASL, timeouts.

    `unhurried_options` are added for consumers whose effect is debounced anyway. `member_per_topic` is for
    groups of several processes (adapters/kafka_reader.py); the embedded broker is spared it.
    """

    bootstrap_servers: str = "127.0.0.1:9092"
    options: Mapping[str, str] = {}
    unhurried_options: Mapping[str, str] = {}
    member_per_topic: bool = True
    partitions: int = Field(default=12, ge=1, le=10_000)
    replication_factor: int = Field(default=-1, ge=-1)
    delivery_timeout_seconds: float = Field(default=120.0, gt=0)
    linger_ms: float = Field(default=2.0, ge=0)

    @field_validator("options", "unhurried_options", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """Numbers and booleans of the JSON object become the text librdkafka wants."""
        if not isinstance(value, Mapping):
            raise ValueError(
                'expected a JSON object of librdkafka options, such as {"security.protocol": "SSL"}'
            )
        fixed = sorted(PROTECTED & set(value))
        if fixed:
            raise ValueError(f"{', '.join(fixed)} cannot be set: delivery without loss depends on it")
        return {
            str(name): str(inner).lower() if isinstance(inner, bool) else str(inner)
            for name, inner in value.items()
        }

    def unhurried(self) -> Self:
        """The same for a consumer that nobody waits for."""
        return self.model_copy(update={"options": {**self.options, **self.unhurried_options}})

    def client_config(self, client_id: str, *, consumes: bool = False) -> dict[str, Any]:
        """What every client has in common; options that only consumers know go to consumers only."""
        options = {
            name: value
            for name, value in self.options.items()
            if consumes or not name.startswith(_CONSUMER_OPTIONS)
        }
        return {
            "socket.keepalive.enable": True,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "broker.address.family": "v4",
            "log.connection.close": False,
            **options,
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": client_id,
            "error_cb": log_client_error,
            "logger": log,
        }


class Record(NamedTuple):
    """One record as the broker gave it. `timestamp_ms` is -1 where the broker keeps none."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def as_record(message: Message, topic_id: str) -> Record:
    """A message of the client as a record."""
    headers = _headers(message)
    return Record(
        message.topic() or "",
        topic_id,
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        _bytes(message.key()),
        _bytes(message.value()),
        tuple((str(name), _bytes(value) or b"") for name, value in headers) if headers else (),
    )


def _headers(message: Message) -> Any:
    """Pairs of name and value; none of them where a name is not UTF-8: the client cannot hand that out."""
    try:
        return message.headers() or ()
    except SystemError:  # from within the client, which must not be asked twice
        log.warning(
            "record_headers_unreadable topic=%s partition=%s offset=%s: a name is not UTF-8, read without",
            message.topic(),
            message.partition(),
            message.offset(),
        )
        return ()


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def log_client_error(error: KafkaError) -> None:
    """Connection trouble that librdkafka handles itself, and has already logged: never raised."""
    log.debug("kafka_client_error code=%s reason=%s", error.name(), error.str())


def is_too_large(error: Exception) -> bool:
    """Whether a record was refused, by the client or by the broker, for its size alone."""
    reason = error.args[0] if isinstance(error, KafkaException) else None
    return isinstance(reason, KafkaError) and reason.code() == KafkaError.MSG_SIZE_TOO_LARGE


def _delivered(topic: str, on_ack: Acknowledge | None) -> Delivered:
    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            UNDELIVERED_RECORDS_TOTAL.labels(topic=topic).inc()
        if on_ack is not None:
            on_ack(None if error is None else KafkaException(error))
        elif error is not None:
            log.warning("record_not_delivered topic=%s reason=%s", topic, error.str())

    return delivered


def _traced(delivered: Delivered, answered: Acknowledge | None) -> Delivered:
    """`delivered`, and the end of the record's span."""
    if answered is None:
        return delivered

    def both(error: KafkaError | None, message: Message) -> None:
        answered(None if error is None else KafkaException(error))
        delivered(error, message)

    return both


class Publisher:
    """An idempotent producer. Thread-safe; acknowledgements arrive on a thread of its own."""

    def __init__(self, settings: KafkaSettings, *, client_id: str = "simstream") -> None:
        self._producer = Producer(
            {
                "compression.type": "lz4",
                "linger.ms": settings.linger_ms,
                "queue.buffering.max.messages": 100_000,
                "queue.buffering.max.kbytes": 65_536,
                "message.max.bytes": CLIENT_MAX_BYTES,
                "delivery.timeout.ms": int(settings.delivery_timeout_seconds * 1000),
                **settings.client_config(client_id),
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",
            }
        )
        _open.add(self)
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="publisher-acks", daemon=True)
        self._poller.start()

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(0.1)

    def send(
        self,
        topic: str,
        *,
        key: str | bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        on_ack: Acknowledge | None = None,
    ) -> None:
        """Hand a record to the client; blocks while its queue is full.

        `on_ack` is called once: with None when every in-sync replica has the record, else with the reason.
        Raises Halt when the producer can never send again (a fatal error of the idempotent producer).
        """
        delivered = _delivered(topic, on_ack)
        answered = None
        if tracing.on():
            headers, answered = tracing.sending(topic, headers)
            delivered = _traced(delivered, answered)
        while True:
            try:
                self._producer.produce(
                    topic,
                    key=key,
                    value=value,
                    headers=list(headers),
                    timestamp=timestamp_ms or 0,
                    on_delivery=delivered,
                )
            except BufferError:
                # The queue is full: back-pressure. The poller's callbacks make room.
                time.sleep(0.005)
                continue
            except KafkaException as error:
                if error.args[0].fatal():
                    raise Halt(f"the Kafka producer cannot go on: {error.args[0].str()}; restart") from error
                if answered is not None:
                    answered(error)
                if on_ack is None:
                    raise
                on_ack(error)
            return

    def send_batch(self, topic: str, records: Sequence[tuple[str, bytes, Acknowledge | None]]) -> None:
        """`send` for many records without headers (key, value, `on_ack`), in one call of the client.

        One by one, each would give up the interpreter's lock and wait to get it back. What a traced request
        sends goes one by one all the same: a batch of the client has no headers.
        """
        if tracing.in_request():
            for key, value, on_ack in records:
                self.send(topic, key=key, value=value, on_ack=on_ack)
            return
        batch = [
            {"key": key, "value": value, "callback": _delivered(topic, on_ack)}
            for key, value, on_ack in records
        ]
        self._producer.produce_batch(topic, batch)
        # What found no room in the queue, or was refused, carries an error now, and `send` knows what to do.
        for message, (key, value, on_ack) in zip(batch, records, strict=True):
            if "_error" in message:
                self.send(topic, key=key, value=value, on_ack=on_ack)

    def flush(self, timeout_seconds: float) -> int:
        """Wait for acknowledgements; answers how many records are still without one."""
        return int(self._producer.flush(timeout_seconds))

    def unacknowledged(self) -> int:
        """Records that have been handed over and not acknowledged."""
        return len(self._producer)

    def close(self) -> None:
        """Wait up to ten seconds for acknowledgements, then stop."""
        self.flush(10.0)
        _open.discard(self)
        self._closed.set()
        self._poller.join(5.0)


_open: WeakSet[Publisher] = WeakSet()
PUBLISHER_QUEUE_RECORDS.set_function(lambda: sum(one.unacknowledged() for one in list(_open)))
