"""How long a change takes from `produce()` to the first HTTP answer that shows it.

Reads   nothing but the synthetic shop (titles, brands, categories)
Writes  an embedded stack in a folder that goes away

Of 50 changes a second one in 20 is sampled, and of the mix one of each kind a second: from the moment it is
handed to the producer, GET /v1/items/ID is asked every 10 ms, or every 5 % of the time waited so far, until
it says that the index holds this change (the fingerprint of the dimension on the item's point), or a later
one of the same item. Then a search for the words of the item has to show it. (One in 20 of 510 a second, each
asking 100 times a second, takes more than two cores have: that measures the asking.) The load comes at fixed
times, whether or not earlier changes have been served. Load and sampler share a process.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Literal

from adapters.kafka import Publisher
from benchmarks.harness import WITHOUT_BF16, Figure, Report, percentile, this_machine
from benchmarks.stack import (
    BULK,
    PRODUCTS,
    RunningStack,
    Updates,
    embedded_stack,
    import_catalogue,
    publish,
)
from model.text import ProductText
from producers.shop import Shop
from schemas.events import ProductUpserted
from schemas.items import context_fingerprint

NAME = "freshness"
SEED = 13
SAMPLES_PER_SECOND = {"alone": 2.5, "busy": 1.0}
SAMPLERS = 32
POLL_SECONDS = 0.01
POLL_SHARE = 0.05
PATIENCE_SECONDS = 60.0
_RECIPE = ProductText()
Kind = Literal["text", "price"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of it. `texts` are changed texts per second where nothing else happens; the last is judged."""

    items: int
    seconds: float
    imported: int
    texts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds from `produce()` to visible: texts by their rate, then both kinds in the mix."""

    alone: Mapping[float, Sequence[float]]
    busy_text: Sequence[float]
    busy_price: Sequence[float]


def run(*, small: bool, data: Path | None) -> Report:
    """1,000 items, a minute of texts, two of the mix, 20,000 imported; in small 200, ten seconds, 1,000.

    Fifty texts a second are more than two cores without bf16 can embed in fp32 beside everything else: what
    is measured then is a queue. So half of that is measured as well, and a small run sends 20. On such a
    processor all of it is measured once more with the weights in int8, which is one setting.
    """
    sizes = Sizes(200, 10.0, 1_000, (20.0,)) if small else Sizes(1_000, 60.0, 20_000, (25.0, 50.0))
    products = [_plain(product, n) for n, product in enumerate(_shop(sizes.items + sizes.imported))]
    *_, judged = sizes.texts
    waits = measured(products, sizes, {})
    figures = _figures(waits, "")
    sampled = [*waits.alone.values(), waits.busy_text, waits.busy_price]
    if not small and WITHOUT_BF16 in this_machine().cpu and not this_machine().gpu:
        compressed = measured(products, replace(sizes, texts=(judged,)), {"SIMSTREAM_MODEL__DTYPE": "int8"})
        figures += _figures(compressed, ", int8")
        sampled += [*compressed.alone.values(), compressed.busy_text, compressed.busy_price]
    figures.append(Figure("changes sampled", sum(map(len, sampled)), "changes", 1, kind="count"))
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "items": sizes.items,
            "imported": sizes.imported,
            "seconds": sizes.seconds,
            "samples per second, texts alone": SAMPLES_PER_SECOND["alone"],
            "samples per second and kind, mix": SAMPLES_PER_SECOND["busy"],
            "seed": SEED,
            "broker": "Tansu",
            "index": "edge",
        },
        data="synthetic shop: title, brand, category (about 30 tokens); stack and load on the same cores",
    )


def measured(products: Sequence[ProductUpserted], sizes: Sizes, environment: dict[str, str]) -> Waits:
    """One embedded stack from its start: texts alone at each rate, then the mix."""
    live, imported = products[: sizes.items], products[sizes.items :]
    with embedded_stack(environment=environment) as stack:
        publisher, updates = Publisher(stack.settings), Updates(stack)
        import_catalogue(stack, publisher, updates, live)
        alone = {}
        for rate in sizes.texts:
            print(f"{rate:g} changed texts/s for {sizes.seconds:.0f} s {environment}", flush=True)
            load = Load("alone", stack, publisher, live, f"at {rate:g}")
            load.run(sizes.seconds, texts_per_second=rate, prices_per_second=0.0)
            alone[rate] = load.waits["text"]
        print(f"10 texts/s and 500 prices/s while {sizes.imported} items are imported", flush=True)
        busy = Load("busy", stack, publisher, live, "busy")
        importing = threading.Thread(target=publish, args=(publisher, imported), kwargs={"headers": BULK})
        importing.start()
        busy.run(sizes.seconds * 2, texts_per_second=10.0, prices_per_second=500.0)
        importing.join()
        updates.close()
        publisher.close()
    return Waits(alone, busy.waits["text"], busy.waits["price"])


def _figures(waits: Waits, precision: str) -> list[Figure]:
    """The last of the rates is judged, and the mix."""
    *easier, judged = waits.alone
    name, mix = "changed text searchable, p", f"10 texts/s + 500 prices/s during a bulk import{precision}"
    return [
        *(
            _latency(f"{name}{percent}", waits.alone[rate], percent, None, f"{rate:g} texts/s{precision}")
            for rate in easier
            for percent in (50, 99)
        ),
        _latency(f"{name}50", waits.alone[judged], 50, 150.0, f"{judged:g} texts/s{precision}"),
        _latency(f"{name}99", waits.alone[judged], 99, 1_000.0, f"{judged:g} texts/s{precision}"),
        _latency(f"{name}99", waits.busy_text, 99, 2_000.0, mix),
        _latency("changed price searchable, p99", waits.busy_price, 99, 1_000.0, mix),
    ]


def _latency(name: str, waits: Sequence[float], percent: float, target_ms: float | None, note: str) -> Figure:
    value = round(percentile(waits, percent) * 1000, 1)
    return Figure(name, value, "ms", target_ms, "at most", kind="latency", note=note, headline=True)


def _shop(count: int) -> Sequence[ProductUpserted]:
    return list(Shop(SEED, products=count).products())


def _plain(product: ProductUpserted, number: int) -> ProductUpserted:
    """Title, brand and category (about 30 tokens, as in the real sets), and a number to find the item by."""
    return product.model_copy(
        update={
            "description": None,
            "attributes": {},
            "title": f"{product.title} {_token(number)}",
            "group_id": None,
            "product_id": f"F{number}",
        }
    )


def _token(number: int) -> str:
    """A word of its own per item: no two share more than a few grams."""
    return f"{number * 2_654_435_761 % 2**32:08x}zq"


class Load:
    """Changes at fixed times, and samplers beside them. `waits` holds seconds by kind of change."""

    def __init__(
        self,
        kind: str,
        stack: RunningStack,
        publisher: Publisher,
        items: Sequence[ProductUpserted],
        name: str,
    ) -> None:
        self._name = name
        self._samples_per_second = SAMPLES_PER_SECOND[kind]
        self._address = stack.http.removeprefix("http://")
        self._publisher = publisher
        self._items = {position: item for position, item in enumerate(items)}
        self.waits: dict[Kind, list[float]] = {"text": [], "price": []}
        #: Fingerprints by item, in the order sent.
        self._sent: dict[int, list[str]] = {}
        self._lock = threading.Lock()

    def run(self, seconds: float, *, texts_per_second: float, prices_per_second: float) -> None:
        """Send everything due in `seconds`, then wait for the samples."""
        rates: dict[Kind, float] = {"text": texts_per_second, "price": prices_per_second}
        due = sorted(
            (n / rate, kind) for kind, rate in rates.items() if rate > 0 for n in range(int(seconds * rate))
        )
        # Texts walk the first half of the items, prices the second: one item is never changed twice at once.
        half = len(self._items) // 2
        counts: dict[Kind, int] = {"text": 0, "price": 0}
        with ThreadPoolExecutor(SAMPLERS) as samplers:
            pending = []
            started = time.monotonic()
            for at, kind in due:
                ahead = started + at - time.monotonic()
                if ahead > 0:
                    time.sleep(ahead)
                number = counts[kind]
                counts[kind] += 1
                position = number % half + (half if kind == "price" else 0)
                changed = self._changed(position, kind, number)
                sent = time.monotonic()
                self._publisher.send(
                    PRODUCTS,
                    key=changed.product_id,
                    value=changed.model_dump_json(exclude_none=True).encode(),
                )
                if number % max(1, round(rates[kind] / self._samples_per_second)) == 0:
                    pending.append(samplers.submit(self._sample, position, changed, kind, sent))
            for sample in pending:
                sample.result()

    def _changed(self, position: int, kind: Kind, number: int) -> ProductUpserted:
        item = self._items[position]
        update: dict[str, object] = {"occurred_at": datetime.now(UTC), "revision": None}
        if kind == "price":
            update["price"] = (item.price or Decimal(1)) + Decimal("0.01")
        else:
            words = item.title.split(" // ")[0]
            update["title"] = f"{words} // {self._name} {number}"
        self._items[position] = changed = item.model_copy(update=update)
        self._sent.setdefault(position, []).append(_fingerprint(changed, kind))
        return changed

    def _sample(self, position: int, changed: ProductUpserted, kind: Kind, sent: float) -> None:
        """Ask until the index holds this change, or a later one of the same item."""
        dimension = "content" if kind == "text" else "context"
        fingerprints = self._sent[position]
        first = fingerprints.index(_fingerprint(changed, kind))
        # A connection of the sample's own: httpx takes longer to ask than the stack to answer.
        connection = HTTPConnection(self._address, timeout=10.0)
        while True:
            asked = time.monotonic()
            item = _asked(connection, "GET", f"/v1/items/{changed.product_id}")
            if item["dimensions"][dimension]["fingerprint"] in fingerprints[first:]:
                break
            if time.monotonic() - sent > PATIENCE_SECONDS:
                raise TimeoutError(
                    f"{kind} of {changed.product_id} revision {changed.order} was not searchable in "
                    f"{PATIENCE_SECONDS:.0f} s: it is {item}, and was sent as {fingerprints}"
                )
            pause = max(POLL_SECONDS, POLL_SHARE * (asked - sent))
            time.sleep(max(0.0, asked + pause - time.monotonic()))
        waited = time.monotonic() - sent
        body = {"text": _token(position), "weights": {"lexical": 1}, "limit": 10}
        hits = _asked(connection, "POST", "/v1/search", body)["items"]
        connection.close()
        shown = [hit["item"]["revision"] for hit in hits if hit["item_id"] == changed.product_id]
        if not shown or shown[0] < changed.order:
            found = [(hit["item_id"], hit["item"]["revision"], hit["score"]) for hit in hits]
            raise RuntimeError(
                f"{kind} of {changed.product_id} revision {changed.order} is in the index, and a search for "
                f"{_token(position)} shows {found}"
            )
        with self._lock:
            self.waits[kind].append(waited)


def _asked(
    connection: HTTPConnection, method: str, path: str, body: dict[str, object] | None = None
) -> dict[str, Any]:
    """What the stack answers."""
    sent = None if body is None else json.dumps(body)
    connection.request(method, path, body=sent, headers={"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != HTTPStatus.OK:
        raise RuntimeError(f"{method} {path} answered {answer.status}: {content!r}")
    found: dict[str, Any] = json.loads(content)
    return found


def _fingerprint(product: ProductUpserted, kind: Kind) -> str:
    """What the item's point carries once it shows this version of the product."""
    return _RECIPE.fingerprint(product) if kind == "text" else context_fingerprint(product)
