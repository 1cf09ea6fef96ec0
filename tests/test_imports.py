"""Imports point one way: schemas <- adapters <- {consumers, producers, model, service} <- app.

client/ knows schemas/ alone. The middle row never imports sideways, and torch lives in model/ alone. Read
from the syntax trees, so that an import inside a function counts as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ("schemas", "client", "adapters", "consumers", "producers", "model", "service", "app")
MAY_IMPORT: dict[str, frozenset[str]] = {
    "schemas": frozenset(),
    "client": frozenset({"schemas"}),
    "adapters": frozenset({"schemas"}),
    "consumers": frozenset({"schemas", "adapters"}),
    "producers": frozenset({"schemas", "adapters"}),
    "model": frozenset({"schemas", "adapters"}),
    "service": frozenset({"schemas", "adapters"}),
    "app": frozenset({"schemas", "adapters", "consumers", "producers", "model", "service"}),
}
ONLY_IN_MODEL = frozenset({"torch", "transformers", "safetensors"})
OUTSIDE_THE_PRODUCT = frozenset({"tests", "benchmarks"})


def imported(source: str) -> Iterator[str]:
    """Top-level names that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "(relative)"
            elif node.module:
                yield node.module.partition(".")[0]


def violations(package: str, source: str) -> list[str]:
    """What a module of `package` imports and must not."""
    allowed = MAY_IMPORT[package] | {package}
    found = []
    for name in imported(source):
        if name == "(relative)":
            found.append("a relative import: write it absolutely")
        elif name in HOUSE and name not in allowed:
            found.append(f"{package} must not import {name}")
        elif name in OUTSIDE_THE_PRODUCT:
            found.append(f"{package} must not import {name}")
        elif name in ONLY_IN_MODEL and package != "model":
            found.append(f"{name} belongs to model/")
    return found


def modules() -> list[Path]:
    return sorted(path for package in HOUSE for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_lies_before_it(path: Path) -> None:
    assert violations(path.relative_to(ROOT).parts[0], path.read_text()) == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("schemas", "import adapters.kafka"),
        ("client", "from adapters.kafka import Publisher"),
        ("adapters", "from consumers.runner import Runner"),
        ("service", "def f():\n    from model.encoder import TextEncoder"),
        ("consumers", "import torch"),
        ("app", "import torch.nn"),
        ("model", "from service import app"),
        ("model", "from producers.shop_opinions import load"),
        ("consumers", "from producers.shop_opinions import opinionated"),
        ("service", "import producers.shop_reviews"),
        ("producers", "from . import shop"),
        ("app", "from tests.support import doubles"),
    ],
)
def test_a_forbidden_import_is_found(package: str, source: str) -> None:
    assert violations(package, source) != []


def test_every_package_of_the_distribution_is_watched() -> None:
    listed = (ROOT / "pyproject.toml").read_text()
    assert all(f'"{package}"' in listed for package in HOUSE)
    assert len(modules()) > len(HOUSE)
