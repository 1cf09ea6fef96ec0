"""Which route answers where an id itself ends as one does: `boot%2Fprice` is an item, `boot/price` its price.

Reads   the path as it was sent
Writes  nothing
Never   goes by the decoded path, in which the two are the same
"""

from __future__ import annotations

from starlette.routing import Match
from starlette.types import Scope

from service.strict_json import StrictJsonRoute


class ItemRoute(StrictJsonRoute):
    """A route of an item, or below it. What it ends in has to stand in the path as the route has it.

    What it does not take goes on to the item's own route, which therefore comes last.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See starlette.routing.Route."""
        _, parameter, ending = self.path_format.rpartition("}")
        if parameter and not scope.get("raw_path", b"").endswith(ending.encode()):
            return Match.NONE, {}
        return super().matches(scope)
