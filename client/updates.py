"""The stream of changes: bytes as they come become messages. Shared by both clients; opens nothing."""

from __future__ import annotations

from schemas.api_watch import UpdatesView

#: GET /v1/updates: an endless answer, which is silent for 15 s at most.
UPDATES = "/v1/updates"
SILENCE_SECONDS = 60.0
_DATA = b"data: "


class Messages:
    """Reads one stream. A line ends with a line feed and with nothing else, though titles hold U+2028."""

    def __init__(self) -> None:
        #: The parts of a line that has not ended.
        self._begun: list[bytes] = []

    def heard(self, chunk: bytes) -> list[UpdatesView]:
        """The messages that these bytes bring to an end."""
        first, *others = chunk.split(b"\n")
        self._begun.append(first)
        if not others:
            return []
        ended = [b"".join(self._begun), *others[:-1]]
        self._begun = [others[-1]]
        return [
            UpdatesView.model_validate_json(line[len(_DATA) :]) for line in ended if line.startswith(_DATA)
        ]
