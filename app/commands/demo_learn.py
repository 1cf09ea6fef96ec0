"""`simstream demo-learn`: the model learns from shoppers and swaps itself in, on an embedded stack.

Reads   nothing but the synthetic shop
Writes  `var/learn`, made anew each time
Never   judges by other bounds than the shop of a user would be: the gate's settings are the defaults

Every shopper of this shop likes kinds of products together that are nothing alike; which ones is dealt like
cards, without a look at any text. So a text says little about which of an item's neighbours of other kinds
the same shoppers like, and what is better afterwards was learned from events. Queries go on all the time, by
content alone, and each answer names its release.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from adapters.kafka import Publisher
from adapters.kafka_log import Tail
from app.commands.demo_queries import Load, Planted, question
from app.commands.demo_start import STACK_FOLDERS, begin
from app.commands.learn import verdict_lines
from app.discovery import Addresses
from app.rollouts import request
from app.settings import Settings, load_settings
from app.stack import running
from app.trainer_process import Job, TrainerProcess
from app.wiring import open_board
from consumers.release_requests import wait_until
from producers.shop import Shop
from producers.shop_assortment import TASTE_GROUPS
from schemas.api import Answer
from schemas.errors import Halt
from schemas.events import ItemUpdated, ProductUpserted
from schemas.parsing import parse_event
from schemas.rollouts import Rollout, RolloutState

if TYPE_CHECKING:
    from model.candidate import Outcome

#: Nothing here takes longer; a stack that is stuck is said to be.
_PATIENCE_SECONDS = 1_800.0
_HISTORY_DAYS = 30
#: Half of the history counts as the past: it is replayed, and the gate asks whether it was forgotten.
_WINDOW_DAYS, _PERIOD_DAYS = 15, 5
_RECIPE = """
# Small enough for two cores: texts are cut at 32 tokens, which few are longer than. Old pairs are replayed,
# and nothing is distilled, which would take more steps: the gate says whether anything was forgotten.
batch_pairs = 32
max_tokens = 32
learning_rate = 2e-4
distil = 0
evaluations = 2
"""


def demo_learn(
    products: Annotated[int, typer.Option(min=100, max=20_000, help="Size of the synthetic shop.")] = 160,
    shoppers: Annotated[int, typer.Option(min=20, help="How many come to it.")] = 200,
    pairs: Annotated[int, typer.Option(min=200, help="The training budget.")] = 1_500,
    seed: Annotated[int, typer.Option(help="Another seed is another shop.")] = 7,
    data_dir: Annotated[Path, typer.Option(help="Scratch folder; emptied first.")] = Path("var/learn"),
) -> None:
    """Publish a small shop and its shoppers, train on what they did, judge, fill, verify and swap."""
    started = time.monotonic()
    console, quiet = begin(data_dir, (*STACK_FOLDERS, "releases", "archive", "training"))
    shop = Shop(
        seed,
        products=products,
        shoppers=shoppers,
        sessions_per_shopper=8.0,
        history_days=_HISTORY_DAYS,
        start=datetime.now(UTC),
        tastes="kinds",
    )
    recipe = data_dir / "recipe.toml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(_RECIPE)
    console.print("[bold]1. The stack[/bold]: broker, Redis and Qdrant's engine, on this machine")
    settings = _settings(data_dir, pairs=pairs).model_copy(update={"log": quiet})
    with running(
        settings, data_dir=data_dir, port=0, embedded=True, say=lambda line: console.print(f"   {line}")
    ) as (addresses, settings, failures):
        passed = _Learning(console, addresses, settings, data_dir, failures.check).run(shop)
    console.print(f"\nFinished in {time.monotonic() - started:.0f} s. Next: docs/learning.md.")
    raise typer.Exit(0 if passed else 1)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("demo-learn")(demo_learn)


def _settings(data_dir: Path, *, pairs: int) -> Settings:
    base = load_settings({})
    return base.model_copy(
        update={
            "archive": base.archive.model_copy(
                update={
                    "folder": str(data_dir / "archive"),
                    "window_days": float(_WINDOW_DAYS),
                    "period_days": float(_PERIOD_DAYS),
                }
            ),
            "training": base.training.model_copy(
                update={"folder": str(data_dir / "training"), "recipe": str(data_dir / "recipe.toml")}
            ),
            "pairs": base.pairs.model_copy(update={"max_pairs": pairs}),
        }
    )


class _Learning:
    """One run. `check` raises what ended the stack, if something did."""

    def __init__(
        self,
        console: Console,
        addresses: Addresses,
        settings: Settings,
        data_dir: Path,
        check: Callable[[], None],
    ) -> None:
        self._console = console
        self._addresses = addresses
        self._settings = settings
        self._data_dir = data_dir
        self._check = check
        self._topics = settings.named_topics()
        self._api = httpx.Client(base_url=addresses.http, timeout=60.0)

    def run(self, shop: Shop) -> bool:
        """The seven steps; whether the candidate went live."""
        # Short texts, so that two cores do: no descriptions, no attributes.
        short: dict[str, object] = {"description": None, "attributes": {}}
        products = [product.model_copy(update=short) for product in shop.products()]
        titles = {product.product_id: product.title for product in products}
        planted = Planted(shop)
        self._publish(products, shop)
        before = self._neighbours(titles)
        self._before(before, planted)
        load = Load(self._addresses.http, list(titles))
        with load.running():
            outcome = self._train()
            for line in verdict_lines(outcome.verdict, slices=False):
                self._console.print(f"   {line}")
            if outcome.manifest is None or not outcome.verdict.passed:
                self._console.print("   The gate has refused it, so nothing is swapped.")
                return False
            self._console.print(f"   [bold]{outcome.manifest.release_id} passed[/bold]")
            self._swap(outcome.manifest.release_id, load)
        self._after(before, self._neighbours(titles), titles, planted)
        self._api.close()
        return True

    def _publish(self, products: Sequence[ProductUpserted], shop: Shop) -> None:
        events = list(shop.events())
        self._console.print(
            f"\n[bold]2. A shop of {len(products):,} products[/bold], and {len(events):,} things that its "
            f"shoppers did in {_HISTORY_DAYS} days.\n   Each likes two of {TASTE_GROUPS} groups, made of "
            "kinds of products that are nothing alike: no text names them."
        )
        begun = time.monotonic()
        updates = Tail(self._settings.kafka, self._topics.updated.name)
        publisher = Publisher(self._settings.kafka, client_id="simstream-demo-learn")
        waiting = {product.product_id for product in products}
        for product in products:
            body = product.model_dump_json(exclude_none=True).encode()
            publisher.send(self._topics.products.name, key=product.product_id, value=body)
        while waiting:
            for record in updates.poll(0.1):
                if record.value is not None:
                    waiting.discard(parse_event(record.value, ItemUpdated).product_id)
            self._patience(begun, "the shop is not searchable")
        for event in events:
            body = event.model_dump_json(exclude_none=True).encode()
            publisher.send(self._topics.events.name, key=event.user_id, value=body)
        publisher.close()
        updates.close()
        self._console.print(f"   searchable, and told, after {time.monotonic() - begun:.0f} s")

    def _before(self, before: Mapping[str, Sequence[str]], planted: Planted) -> None:
        everything = list(before)
        chance = planted.share({item: everything for item in everything})
        self._console.print(
            "\n[bold]3. Before[/bold]: the ten nearest of every product by content alone\n"
            f"   Of those of other kinds {planted.share(before):.1%} are liked by the same shoppers; of all "
            f"products {chance:.1%} are"
        )

    def _train(self) -> Outcome:
        """The trainer is a process of its own at the lowest priority, as `simstream up` runs it."""
        self._console.print("\n[bold]4. It learns[/bold] from what shoppers did, while queries go on")
        begun = time.monotonic()
        trainer = TrainerProcess(Job(self._settings, self._data_dir))
        try:
            while True:
                self._patience(begun, "training has not ended")
                said = trainer.next(0.5)
                if said is None:
                    continue
                kind, content = said
                if kind == "said":
                    self._console.print(f"   {content}")
                    continue
                outcome: Outcome = content
                break
        finally:
            trainer.stop()
        training = outcome.manifest.training if outcome.manifest is not None else None
        if training is not None:
            data = ", ".join(f"{n:,} {name}" for name, n in training.data.items() if isinstance(n, int))
            losses = [entry["loss"] for entry in training.curves if "loss" in entry]
            self._console.print(
                f"   {data}\n   {training.steps} steps in {training.seconds:.0f} s, loss {losses[0]:.2f} -> "
                f"{losses[-1]:.2f}; with archive, gate and report {time.monotonic() - begun:.0f} s"
            )
        self._console.print(
            "\n[bold]5. The gate[/bold] compares it with the live release on what trained nothing"
        )
        return outcome

    def _swap(self, release_id: str, load: Load) -> None:
        self._console.print("\n[bold]6. Approved: the swap[/bold], while queries go on")
        load.phase = "swap"
        board = open_board(self._settings)
        begun = time.monotonic()

        def say(one: Rollout) -> None:
            filled = one.state is RolloutState.BACKFILLING and one.filled
            step = "filled, and written like the live one" if filled else one.state.value
            why = f": {one.reason}" if one.reason else ""
            self._console.print(f"   {time.monotonic() - begun:5.1f} s  {step}{why}")

        asked = request(self._settings, board, release_id)
        ended = wait_until(board, asked.collection, say=say, timeout_seconds=_PATIENCE_SECONDS)
        if ended.state is not RolloutState.LIVE:
            raise Halt(f"{ended.collection} did not go live: {ended.reason}")
        load.phase = "after"
        time.sleep(5.0)
        for phase in ("training", "swap", "after"):
            self._console.print(f"   queries, {phase}: {load.in_words(phase)}")
        failed = sum(one.release is None for one in load.asked)
        self._console.print(f"   [bold]{len(load.asked):,} queries, {failed} failed[/bold]")

    def _after(
        self,
        before: Mapping[str, Sequence[str]],
        after: Mapping[str, Sequence[str]],
        titles: Mapping[str, str],
        planted: Planted,
    ) -> None:
        self._console.print(
            "\n[bold]7. After[/bold]: the ten nearest of every product by content alone\n"
            f"   Of those of other kinds {planted.share(before):.1%} -> "
            f"[bold]{planted.share(after):.1%}[/bold] are liked by the same shoppers"
        )

        def gained(item: str) -> int:
            return sum(planted.same(item, one) for one in after[item]) - sum(
                planted.same(item, one) for one in before[item]
            )

        seed = max(sorted(before), key=gained)
        table = Table(
            "before", "after", title=f"   {titles[seed]}", title_justify="left", box=None, padding=(0, 2)
        )
        for pair in zip(before[seed], after[seed], strict=False):
            table.add_row(*(("* " if planted.same(seed, one) else "  ") + titles[one] for one in pair))
        self._console.print(table)
        self._console.print("   * of another kind, and liked by the same shoppers. This product gained most.")

    def _neighbours(self, items: Mapping[str, str]) -> dict[str, list[str]]:
        """The nearest of each item by content, nearest first, as the service answers."""
        found = {}
        for item in items:
            response = self._api.post("/v1/similar", json=question(item))
            response.raise_for_status()
            answer = Answer.model_validate_json(response.content)
            found[item] = [hit.item_id for hit in answer.items]
        return found

    def _patience(self, begun: float, what: str) -> None:
        self._check()
        if time.monotonic() - begun > _PATIENCE_SECONDS:
            raise TimeoutError(f"{what} after {_PATIENCE_SECONDS:.0f} s")
