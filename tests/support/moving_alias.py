"""An index whose alias moves to the other collection in every request, once it has its seeds."""

from __future__ import annotations

from typing import Any

from adapters.index_port import LIVE_ALIAS, VectorIndex


class MovingAlias:
    """Implements adapters.index_port.VectorIndex over another index.

    `through_alias` is what must not be: every call goes to whatever the alias names by then.
    """

    def __init__(
        self,
        index: VectorIndex,
        collections: tuple[str, str],
        *,
        alias: str = LIVE_ALIAS,
        through_alias: bool,
    ) -> None:
        self._index = index
        self._collections = collections
        self._alias = alias
        self._through_alias = through_alias

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._index, name)
        if name not in ("fetch", "candidates", "scores", "idf", "count"):
            return call

        def moving(collection: str, *args: Any, **named: Any) -> Any:
            first, second = self._collections
            live = self._index.resolve(self._alias)
            answer = call(live if self._through_alias else collection, *args, **named)
            if name == "fetch":
                self._index.set_alias(self._alias, second if live == first else first)
            return answer

        return moving
