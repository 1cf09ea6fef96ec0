"""`simstream metrics`: the page of what is exported, docs/metrics.md.

Reads   adapters/metrics.py
Writes  standard output
"""

from __future__ import annotations

from itertools import groupby

import typer

from adapters.metrics import DECLARED

_HEAD = """# Metrics

Generated from `adapters/metrics.py` by `simstream metrics > docs/metrics.md`.

The service answers at `/metrics` (to a key, where keys are set); any process exports on
`SIMSTREAM_METRICS__PORT`, without a key, so keep that port inside. `simstream up` adds its children's figures
to its own. Labels have the values named below and no others: no product, no shopper.
Beside these come `process_*` and `python_*` of the exporting process, from prometheus-client.

[Rules](../deploy/prometheus/alerts.yml) and [dashboards](../deploy/grafana) use them;
[operations.md](operations.md) says what to do when an alert fires.
"""


def page() -> str:
    """The page in Markdown."""
    lines = [_HEAD]
    for part, metrics in groupby(DECLARED, key=lambda one: one.part):
        lines += [f"## {part}", "", "| name | kind | labels | |", "|---|---|---|---|"]
        for one in metrics:
            labels = " ".join(f"`{label}`" for label in one.labels)
            lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.sentence} |")
        lines.append("")
    return "\n".join(lines)


def metrics() -> None:
    """Print what is exported, as Markdown: docs/metrics.md."""
    print(page(), end="")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(metrics)
