"""`simstream demo`: the whole path on an embedded stack, in under a minute, with nothing to sign up for.

Reads   nothing but the synthetic shop
Writes  `var/demo`, made anew each time (the release inside is kept)

What it prints are measurements of this run: freshness comes from the times that `items.updated` carries.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from adapters.kafka import KafkaSettings, Publisher
from adapters.kafka_log import Tail
from app.commands.demo_start import STACK_FOLDERS, begin
from app.discovery import Addresses
from app.settings import Settings, load_settings
from app.stack import running
from producers.shop import Shop
from schemas.api import Answer, Hit
from schemas.events import ItemUpdated, ProductUpserted, UserEvent, UserEventType
from schemas.parsing import parse_event

#: Nothing here takes longer; a stack that is stuck is said to be.
_PATIENCE_SECONDS = 120.0
_SHOPPERS = 20
_DEBOUNCE_SECONDS = 1.0


def demo(
    products: Annotated[int, typer.Option(min=20, max=20_000, help="Size of the synthetic shop.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Another seed is another shop.")] = 7,
    data_dir: Annotated[Path, typer.Option(help="Scratch folder; emptied first.")] = Path("var/demo"),
) -> None:
    """Start everything, publish a small shop, show neighbours, and what a change costs."""
    started = time.monotonic()
    console, quiet = begin(data_dir, STACK_FOLDERS)
    console.print(
        "[bold]1. The stack[/bold]: a Kafka-protocol broker, Redis and Qdrant's engine, on this machine"
    )
    with running(
        # Its children log by the settings they are given.
        _soon(load_settings({}).model_copy(update={"log": quiet})),
        data_dir=data_dir,
        port=0,
        embedded=True,
        say=lambda line: console.print(f"   {line}"),
    ) as (addresses, settings, failures):
        _Demo(console, addresses, settings, failures.check).run(Shop(seed, products=products))
    console.print(
        f"\nFinished in {time.monotonic() - started:.0f} s. Next: the README, or `simstream up --embedded`."
    )


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(demo)


class _Demo:
    """One run. `check` raises what ended the stack, if something did."""

    def __init__(
        self, console: Console, addresses: Addresses, settings: Settings, check: Callable[[], None]
    ) -> None:
        self._console = console
        self._addresses = addresses
        self._topics = settings.named_topics()
        self._check = check
        self._kafka: KafkaSettings = settings.kafka
        self._api = httpx.Client(base_url=addresses.http, timeout=30.0)
        self._updates = Tail(settings.kafka, self._topics.updated.name)
        self._publisher = Publisher(settings.kafka, client_id="simstream-demo")

    def run(self, shop: Shop) -> None:
        """The six steps."""
        products = list(shop.products())
        self._import(products)
        seed = self._neighbours(products)
        self._new_product(seed)
        self._changes(seed)
        self._shoppers(seed, products)
        self._publisher.close()
        self._updates.close()
        self._api.close()

    def _import(self, products: list[ProductUpserted]) -> None:
        first = products[0]
        self._console.print(
            f"\n[bold]2. A shop of {len(products):,} products[/bold] is published to "
            f"{self._topics.products.name}, for example"
        )
        self._console.print(f"   {first.title} · {' > '.join(first.category)} · {_price(first)}")
        begun = time.monotonic()
        self._publish(products)
        waiting = {product.product_id for product in products}
        ages: list[float] = []
        with self._progress("searchable", total=len(waiting)) as advance:
            while waiting:
                for update in self._poll():
                    if update.product_id in waiting:
                        waiting.discard(update.product_id)
                        ages.append(_age_seconds(update))
                        advance(1)
                self._patience(begun, "the shop is not searchable")
        seconds = time.monotonic() - begun
        self._console.print(
            f"   all searchable after {seconds:.1f} s: {len(products) / seconds:,.0f} products/s, "
            "each through Kafka, Redis, the encoder and the index"
        )

    def _neighbours(self, products: list[ProductUpserted]) -> ProductUpserted:
        """Neighbours of a product that has some worth showing: the most explained of a few."""
        answers = [
            (product, self._similar(product.product_id))
            for product in products[:: max(1, len(products) // 12)]
        ]
        seed, answer = max(answers, key=lambda pair: pair[1].items[0].score if pair[1].items else 0.0)
        self._console.print("\n[bold]3. What is similar to one of them, and why[/bold]")
        self._table(seed.title, answer)
        return seed

    def _new_product(self, seed: ProductUpserted) -> None:
        self._console.print("\n[bold]4. A product that did not exist a moment ago[/bold]")
        fresh = seed.model_copy(
            update={
                "product_id": "DEMO-NEW",
                "title": f"{seed.title} (2027 edition)",
                "group_id": None,
            }
        )
        begun = time.monotonic()
        self._publish([fresh])
        while not any(hit.item_id == fresh.product_id for hit in self._similar(seed.product_id).items):
            self._patience(begun, "the new product is no neighbour")
            time.sleep(0.01)
        self._console.print(
            f"   published {fresh.title!r}\n   and among its neighbours over HTTP after "
            f"[bold]{(time.monotonic() - begun) * 1000:.0f} ms[/bold]"
        )

    def _changes(self, seed: ProductUpserted) -> None:
        self._console.print("\n[bold]5. What a change costs[/bold]")
        table = Table("change", "encoder calls", "written", "event to searchable", box=None, padding=(0, 3))
        renamed = seed.model_copy(update={"title": f"Refurbished {seed.title}"})
        self._row(table, "a new title", renamed, until="content")
        cheaper = ((renamed.price or Decimal(10)) * Decimal("0.9")).quantize(Decimal("0.01"))
        priced = renamed.model_copy(update={"price": cheaper, "currency": renamed.currency or "EUR"})
        self._row(table, "a new price", priced, until="context")
        self._console.print(table)

    def _shoppers(self, seed: ProductUpserted, products: list[ProductUpserted]) -> None:
        """Shoppers who come by make something its companion that no text would."""
        self._console.print("\n[bold]6. What shoppers do[/bold]")
        near = {hit.item_id for hit in self._similar(seed.product_id).items}
        other = next(
            product
            for product in products
            if product.product_id not in near and product.category[:1] != seed.category[:1]
        )
        begun = time.monotonic()
        for number in range(_SHOPPERS):
            done: list[tuple[UserEventType, ProductUpserted]] = [("view", seed), ("cart", other)]
            for kind, product in done:
                event = UserEvent(
                    event_id=f"demo-{number}-{kind}",
                    type=kind,
                    user_id=f"demo-{number}",
                    product_id=product.product_id,
                    occurred_at=datetime.now(UTC),
                )
                self._publisher.send(
                    self._topics.events.name, key=event.user_id, value=event.model_dump_json().encode()
                )
        while True:
            hits = self._similar(seed.product_id, preset="complements").items
            if hits and hits[0].item_id == other.product_id:
                break
            self._patience(begun, "what the shoppers did is not seen")
            time.sleep(0.05)
        shared = hits[0].explanation.shared.shoppers if hits[0].explanation is not None else None
        self._console.print(
            f"   {_SHOPPERS} shoppers looked at the product of 3. and put {other.title!r} into their carts\n"
            f"   and it is what goes with it after [bold]{time.monotonic() - begun:.1f} s[/bold]: "
            f"{shared} shoppers in common, no encoder call (debounced by {_DEBOUNCE_SECONDS:g} s here)"
        )

    def _row(self, table: Table, what: str, change: ProductUpserted, *, until: str) -> None:
        """Publish one change and add up what its updates say until the dimension `until` was written."""
        self._poll()
        begun = time.monotonic()
        (sent,) = self._publish([change])
        mine: list[ItemUpdated] = []
        while not any(until in update.dimensions for update in mine):
            mine += [
                update
                for update in self._poll()
                if update.product_id == sent.product_id and update.revision == sent.order
            ]
            self._patience(begun, f"{what} is not searchable")
        calls = sum(update.encoder_calls for update in mine)
        written = sorted({dimension for update in mine for dimension in update.dimensions})
        table.add_row(what, str(calls), ", ".join(written), f"{_age_seconds(mine[-1]) * 1000:.0f} ms")

    # --- small things -------------------------------------------------------------------------------

    def _publish(self, products: list[ProductUpserted]) -> list[ProductUpserted]:
        """Each product happens now; the events as they were sent."""
        events = []
        for product in products:
            event = product.model_copy(update={"revision": None, "occurred_at": datetime.now(UTC)})
            events.append(event)
            self._publisher.send(
                self._topics.products.name,
                key=event.product_id,
                value=event.model_dump_json(exclude_none=True).encode(),
            )
        return events

    def _poll(self) -> list[ItemUpdated]:
        records = self._updates.poll(0.05)
        return [parse_event(record.value, ItemUpdated) for record in records if record.value is not None]

    def _similar(self, product_id: str, **more: str) -> Answer:
        response = self._api.post(
            "/v1/similar", json={"seeds": [{"item_id": product_id}], "limit": 5, "explain": True, **more}
        )
        response.raise_for_status()
        return Answer.model_validate_json(response.content)

    def _patience(self, begun: float, what: str) -> None:
        self._check()
        if time.monotonic() - begun > _PATIENCE_SECONDS:
            raise TimeoutError(f"{what} after {_PATIENCE_SECONDS:.0f} s")

    @contextmanager
    def _progress(self, what: str, *, total: int) -> Any:
        bar = Progress(
            TextColumn("   {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        with bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)

    def _table(self, heading: str, answer: Answer) -> None:
        table = Table(
            "score",
            "content",
            "lexical",
            "neighbour",
            "because of",
            title=f"   {heading}",
            title_justify="left",
            box=None,
            padding=(0, 2),
        )
        for hit in answer.items:
            table.add_row(
                f"{hit.score:.2f}",
                _part(hit, "content"),
                _part(hit, "lexical"),
                hit.item.title,
                _because(hit),
            )
        self._console.print(table)


def _soon(settings: Settings) -> Settings:
    """Settings under which behaviour is written within a second or two, so that nobody waits to see it."""
    debounce = settings.behaviour.debounce.model_copy(update={"delay_seconds": _DEBOUNCE_SECONDS})
    return settings.model_copy(
        update={"behaviour": settings.behaviour.model_copy(update={"debounce": debounce})}
    )


def _part(hit: Hit, dimension: str) -> str:
    found = hit.dimensions.get(dimension)
    return f"{found.score:.2f}" if found else "-"


def _because(hit: Hit) -> str:
    if hit.explanation is None:
        return ""
    shared = hit.explanation.shared
    reasons = [" ".join(shared.terms[:6])]
    if shared.price_ratio is not None:
        reasons.append(f"price x{shared.price_ratio:.2f}")
    return "; ".join(reason for reason in reasons if reason)


def _price(product: ProductUpserted) -> str:
    return f"{product.price} {product.currency}" if product.price is not None else "no price"


def _age_seconds(update: ItemUpdated) -> float:
    """From the event to searchable."""
    return (update.stages.searchable_at - update.stages.occurred_at).total_seconds()
