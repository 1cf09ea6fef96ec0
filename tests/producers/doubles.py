"""A publisher that remembers instead of sending, and answers as it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from adapters.kafka import Acknowledge, Headers, Publisher


@dataclass
class Sent:
    """One record as it was handed over."""

    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]

    @property
    def document(self) -> dict[str, object]:
        """The value, decoded."""
        document: dict[str, object] = orjson.loads(self.value)
        return document


@dataclass
class Answers:
    """What the broker says to the record of this place: None, an error, or nothing at all (`silent`)."""

    errors: dict[int, Exception] = field(default_factory=dict)
    silent: frozenset[int] = frozenset()


class RecordingPublisher(Publisher):
    """Takes what Publisher takes. Acknowledges at flush, as a broker does later than the send."""

    def __init__(
        self, answers: Answers | None = None, *, before_send: Callable[[int], None] | None = None
    ) -> None:
        self.sent: list[Sent] = []
        self._answers = answers or Answers()
        self._before_send = before_send
        self._waiting: list[tuple[int, Acknowledge | None]] = []

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
        if self._before_send is not None:
            self._before_send(len(self.sent))
        self._waiting.append((len(self.sent), on_ack))
        encoded = key.encode() if isinstance(key, str) else key
        self.sent.append(Sent(topic, encoded, value or b"", tuple(headers)))

    def send_batch(self, topic: str, records: Sequence[tuple[str, bytes, Acknowledge | None]]) -> None:
        for key, value, on_ack in records:
            self.send(topic, key=key, value=value, on_ack=on_ack)

    def flush(self, timeout_seconds: float) -> int:
        waiting, self._waiting = self._waiting, []
        for place, on_ack in waiting:
            if place in self._answers.silent:
                self._waiting.append((place, on_ack))
            elif on_ack is not None:
                on_ack(self._answers.errors.get(place))
        return len(self._waiting)

    def close(self) -> None:
        self.flush(0.0)


def documents(sent: Sequence[Sent]) -> list[dict[str, object]]:
    """The values of records, decoded."""
    return [record.document for record in sent]
