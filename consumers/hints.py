"""What stands on items.changed: an item that should be looked at again. How it is read, and gathered by item.

Reads   nothing
Writes  nothing
Never   takes more from a hint than which item it is about and what it says moved
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adapters.kafka import Record
from consumers.progress import Delivery
from schemas.errors import PoisonMessage
from schemas.events import ItemChanged
from schemas.parsing import InvalidEvent, parse_event


def read_hint(record: Record) -> ItemChanged:
    """The hint of a record. Raises PoisonMessage naming the field and what was expected."""
    if record.value is None:
        raise PoisonMessage("a hint must not be a null record: publish an ItemChanged", "null")
    try:
        return parse_event(record.value, ItemChanged)
    except InvalidEvent as error:
        raise PoisonMessage(str(error)) from error


def by_item(
    deliveries: Iterable[Delivery[ItemChanged]], *, no_matter: frozenset[str]
) -> Mapping[str, list[Delivery[ItemChanged]]]:
    """Deliveries by product, in order; those that name nothing but what does not matter are settled."""
    found: dict[str, list[Delivery[ItemChanged]]] = {}
    for delivery in deliveries:
        named = delivery.event.dimensions
        if named and no_matter.issuperset(named):
            delivery.settle()
        else:
            found.setdefault(delivery.event.product_id, []).append(delivery)
    return found
