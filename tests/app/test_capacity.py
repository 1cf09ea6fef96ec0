"""The capacity model adds up, says what it extrapolates, knows no price, and rests on what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import capacity as model
from app.capacity import Shop
from app.capacity_plan import BUSY, FULL, Nodes, Part, Plan, plan
from app.cli import command_line
from benchmarks.capacity import beside
from benchmarks.harness import RESULTS, result_json

SHOP = Shop(items=50_000, shoppers=10_000)


def part(found: Plan, name: str) -> Part:
    return next(one for one in found.parts if one.name == name)


def test_twice_the_items_take_twice_as_much_but_for_what_an_empty_index_takes() -> None:
    more = replace(SHOP, items=2 * SHOP.items, shoppers=2 * SHOP.shoppers)
    assert model.index_walked_bytes(more) == pytest.approx(2 * model.index_walked_bytes(SHOP))
    assert sum(model.redis_bytes(more).values()) == pytest.approx(2 * sum(model.redis_bytes(SHOP).values()))
    own, empty = model.index_own_bytes, model.INDEX_OWN_BYTES
    assert own(more) - empty == pytest.approx(2 * (own(SHOP) - empty))


def test_quantised_vectors_take_less_memory_and_more_disk() -> None:
    plain, int8, binary = (
        replace(SHOP, quantisation="none"),
        replace(SHOP, quantisation="int8"),
        replace(SHOP, quantisation="binary"),
    )
    memory, disk = model.index_memory_bytes, model.index_disk_bytes
    assert memory(plain) > memory(int8) > memory(binary)
    assert disk(int8) > disk(binary) > disk(plain)
    # The vectors alone: 1,536 bytes of 384 numbers; 388 and 48.
    assert [model.vector_bytes(one, one.quantisation) for one in (plain, int8, binary)] == [1_536, 388, 48]


def test_a_larger_index_is_spread_over_nodes_and_copies_are_whole() -> None:
    large = replace(SHOP, items=20_000_000)
    one, two = plan(large, Nodes()), plan(large, Nodes(copies=2))
    assert part(one, "index").nodes * 16 * 2**30 * FULL >= model.index_memory_bytes(large)
    assert part(one, "index").nodes > 1
    assert part(two, "index").nodes == 2 * part(one, "index").nodes
    assert part(two, "redis").memory_bytes == 2 * part(one, "redis").memory_bytes
    assert any("several nodes" in note for note in one.notes)


def test_queries_are_answered_by_copies_and_not_by_more_shards() -> None:
    few = part(plan(replace(SHOP, queries_per_second=1), Nodes()), "index")
    many = part(plan(replace(SHOP, queries_per_second=400), Nodes()), "index")
    assert many.nodes > few.nodes == 1
    assert many.memory_bytes == many.nodes * few.memory_bytes
    assert many.cores <= many.nodes * 4 * BUSY
    assert model.index_query_seconds(SHOP, 2) > model.index_query_seconds(SHOP)


def test_rates_become_processes_that_are_half_busy() -> None:
    rest = plan(SHOP, Nodes())
    assert [one.processes for one in rest.parts] == [1] * 7
    busy = plan(
        replace(
            SHOP,
            events_per_second=3 * model.EVENTS_A_SECOND,
            changed_prices_per_second=0.9 * model.CHANGES_A_SECOND,
            queries_per_second=1 / model.SERVICE_SECONDS,
        ),
        Nodes(),
    )
    assert {
        name: part(busy, name).processes for name in ("behaviour", "products", "embeddings", "service")
    } == {
        "behaviour": 6,
        "products": 2,
        "embeddings": 2,
        "service": 2,
    }
    assert part(busy, "redis").nodes > 1
    assert busy.worker_nodes > rest.worker_nodes


def test_a_group_larger_than_its_partitions_is_said() -> None:
    crowded = plan(replace(SHOP, events_per_second=100 * model.EVENTS_A_SECOND), Nodes())
    assert [note for note in crowded.notes if "partitions" in note] == [
        "behaviour: 200 processes want more than the 12 partitions of a topic"
    ]


def test_on_a_gpu_texts_are_bound_by_the_consumer_and_gpus_by_tokens() -> None:
    texts = 4 * model.CHANGES_A_SECOND
    found = plan(replace(SHOP, encoder="gpu", changed_texts_per_second=texts), Nodes())
    assert part(found, "embeddings").processes == 8
    # 1,619,000 tokens/s, where one that is half busy does 499,000.
    assert found.gpus == 4
    assert plan(SHOP, Nodes()).gpus == 0


@pytest.mark.parametrize(
    ("encoder", "nodes", "known"),
    [
        ("cpu", Nodes(), False),
        ("cpu", Nodes(price_per_hour=2.0), True),
        ("gpu", Nodes(price_per_hour=2.0), False),
        ("gpu", Nodes(price_per_hour=2.0, price_per_gpu_hour=30.0), True),
    ],
)
def test_there_is_a_cost_only_where_every_price_is_given(
    encoder: model.Encoder, nodes: Nodes, known: bool
) -> None:
    found = plan(replace(SHOP, encoder=encoder), nodes)
    count = found.worker_nodes + sum(one.nodes for one in found.parts)
    assert found.cost_per_hour == (count * 2.0 + found.gpus * 30.0 if known else None)


def test_what_lies_beyond_the_measurements_is_said() -> None:
    def said(items: int) -> bool:
        return any("extrapolated" in note for note in plan(Shop(items=items), Nodes()).notes)

    assert (said(model.MEASURED_ITEMS), said(model.MEASURED_ITEMS + 1)) == (False, True)


@pytest.mark.parametrize("wrong", [{"items": 0}, {"dimensions": 0}, {"queries_per_second": float("nan")}])
def test_what_no_shop_is_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(SHOP, **wrong)  # type: ignore[arg-type]


def test_the_model_s_rates_are_those_of_the_result_files() -> None:
    def figure(benchmark: str, name: str, note: str | None = None) -> float:
        kept = result_json.validate_json((RESULTS / f"{benchmark}.json").read_bytes()).report
        return next(one.value for one in kept.figures if one.name == name and note in (None, one.note))

    # Another run of a benchmark says something else; one and a half times as much is another machine.
    for constant, measured in (
        (model.EVENTS_A_SECOND, figure("behaviour", "user events, Kafka to Redis")),
        (model.EVENTS_REDIS_CORES, figure("behaviour", "cores used by redis")),
        (model.CHANGES_A_SECOND, figure("prices", "price changes, Kafka to searchable payload")),
        (model.ENCODER_SHARE, figure("embedding-rate", "embeddings consumer over its encoder alone")),
        # 183,337 tokens in 6,762 texts.
        (model.TOKENS_A_SECOND["cpu"], 27 * figure("compress", "texts/s", "ONNX Runtime, fp32")),
        (model.TOKENS_A_SECOND["cpu-bf16"], figure("encoder", "our tokens/s")),
        (model.TOKENS_A_SECOND["gpu"], figure("encoder-gpu", "our tokens/s")),
        (
            1e3 * model.SERVICE_SECONDS,
            figure("query", "median overhead over the index's own calls", "10 queries/s"),
        ),
    ):
        assert constant == pytest.approx(measured, rel=0.5)


def test_a_model_that_is_off_by_more_than_a_fifth_is_missed() -> None:
    def met(measured: float, predicted: float) -> bool | None:
        return beside("memory", measured, predicted, "MB", "10 items", judged=True)[-1].met(small=True)

    assert [met(100, predicted) for predicted in (79, 81, 100, 119, 121)] == [False, True, True, True, False]


def test_the_command_says_it_as_a_table_and_as_json() -> None:
    words = ["capacity", "--items", "1000", "--queries-per-second", "5", "--price-per-node-hour", "0.5"]
    said = CliRunner().invoke(command_line(words), words)
    assert said.exit_code == 0
    assert "Cost: 2.00 an hour, 1,460 a month." in said.output
    found = json.loads(CliRunner().invoke(command_line(words), [*words, "--json"]).output)
    assert found["cost_per_hour"] == 2.0
    assert found["parts"]["index"]["memory_bytes"] == pytest.approx(
        model.index_memory_bytes(Shop(items=1_000))
    )
    assert CliRunner().invoke(command_line(["capacity"]), ["capacity"]).exit_code == 2


def test_the_command_needs_no_torch_and_no_engine() -> None:
    code = "import sys, app.commands.capacity; sys.exit(bool({'torch', 'qdrant_edge'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60, check=False).returncode == 0
