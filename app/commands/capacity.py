"""`simstream capacity`: what a shop of some size needs, by app/capacity.py and app/capacity_plan.py.

Reads   arguments alone: neither settings nor a store
Writes  standard output
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from adapters.index_port import Quantisation
from app.capacity import Encoder, Shop, redis_bytes
from app.capacity_plan import Nodes, Plan, plan

_HOURS_A_MONTH = 730


def capacity(
    items: Annotated[int, typer.Option(min=1, help="Products in the catalogue.")],
    events_per_second: Annotated[float, typer.Option(min=0, help="User events, at the busiest time.")] = 0,
    changed_texts_per_second: Annotated[float, typer.Option(min=0, help="Texts that change.")] = 0,
    changed_prices_per_second: Annotated[
        float, typer.Option(min=0, help="Changes without a new text: price, stock.")
    ] = 0,
    queries_per_second: Annotated[float, typer.Option(min=0, help="Queries.")] = 0,
    shoppers: Annotated[
        int, typer.Option(min=0, help="Shoppers that are remembered, with 20 events each.")
    ] = 0,
    dimensions: Annotated[int, typer.Option(min=1, help="Numbers in a vector of the model.")] = 384,
    quantised: Annotated[
        Quantisation, typer.Option(help="As SIMSTREAM_QDRANT__QUANTISATION: none, int8 or binary.")
    ] = "none",
    encoder: Annotated[
        Encoder,
        typer.Option(help="cpu (two cores, without bf16), cpu-bf16 (two cores) or gpu (H100)."),
    ] = "cpu",
    tokens_per_text: Annotated[float, typer.Option(min=1, help="Length of a product's text.")] = 110,
    copies: Annotated[int, typer.Option(min=1, help="How often index and Redis are there.")] = 1,
    node_cores: Annotated[int, typer.Option(min=1, help="Cores of a node.")] = 4,
    node_memory_gib: Annotated[float, typer.Option(min=0.5, help="Memory of a node.")] = 16,
    price_per_node_hour: Annotated[
        float | None, typer.Option(min=0, help="For a cost; none is known.")
    ] = None,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(min=0, help="Of a GPU with its node, for a cost.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Memory, disk, processes and nodes for a shop of some size; with prices what they cost.

    A model, fitted to measurements on two cores (docs/scaling.md): for a first plan, not for a promise.
    """
    shop = Shop(
        items=items,
        dimensions=dimensions,
        quantisation=quantised,
        shoppers=shoppers,
        tokens_per_text=tokens_per_text,
        events_per_second=events_per_second,
        changed_texts_per_second=changed_texts_per_second,
        changed_prices_per_second=changed_prices_per_second,
        queries_per_second=queries_per_second,
        encoder=encoder,
    )
    nodes = Nodes(node_cores, node_memory_gib, copies, price_per_node_hour, price_per_gpu_hour)
    found = plan(shop, nodes)
    if as_json:
        print(json.dumps(_described(shop, nodes, found)))
    else:
        _show(shop, nodes, found)


def _described(shop: Shop, nodes: Nodes, found: Plan) -> dict[str, object]:
    return {
        "shop": asdict(shop),
        "nodes": asdict(nodes),
        **asdict(found),
        "parts": {one.name: one._asdict() for one in found.parts},
        "redis_bytes": dict(redis_bytes(shop)),
    }


def _show(shop: Shop, nodes: Nodes, found: Plan) -> None:
    table = Table(box=SIMPLE_HEAD, title=f"{shop.items:,} items", title_justify="left")
    for column in ("part", "processes", "nodes", "memory", "disk"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for one in found.parts:
        table.add_row(
            one.name,
            str(one.processes),
            str(one.nodes or ""),
            _size(one.memory_bytes) if one.memory_bytes else "",
            _size(one.disk_bytes) if one.disk_bytes else "",
        )
    table.add_row("consumers and service together", "", str(found.worker_nodes), "", "")
    if found.gpus:
        table.add_row("GPUs", "", str(found.gpus), "", "")
    console = Console(width=100, highlight=False)
    console.print(table)
    console.print(f"A node: {nodes.cores} cores, {nodes.memory_gib:g} GiB.")
    console.print(
        f"All texts encoded anew: {found.fill_hours:,.1f} h by the processes above with nothing else to do; "
        f"its graph built by one node: {found.graph_core_hours:,.1f} core hours."
    )
    if found.cost_per_hour is not None:
        month = found.cost_per_hour * _HOURS_A_MONTH
        console.print(f"Cost: {found.cost_per_hour:,.2f} an hour, {month:,.0f} a month.")
    for note in found.notes:
        console.print(f"- {note}")


def _size(number: float) -> str:
    for unit in ("MB", "GB"):
        number /= 1_000 if unit == "GB" else 1_000_000
        if number < 1_000:
            return f"{number:,.0f} {unit}" if number >= 10 else f"{number:,.1f} {unit}"
    return f"{number / 1_000:,.1f} TB"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(capacity)
