"""model/transfer.py: the R matrix of a line of releases, and what was forgotten on the way."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from model.transfer import backward_transfer, known_by
from schemas.releases import EncoderConfig, FigureOf, FileEntry, Manifest, Verdict
from tests.support.learning import NOW


def release(
    name: str, parent: str | None, periods: Mapping[str, tuple[float, float]] | None = None
) -> Manifest:
    """With (before, after) by period."""
    figures = [
        FigureOf(
            name=f"period {period}",
            queries=100,
            before=before,
            after=after,
            low=0,
            high=0,
            ndcg_before=0,
            ndcg_after=0,
        )
        for period, (before, after) in (periods or {}).items()
    ]
    old = FigureOf(name="old", queries=9, before=0.9, after=0.8, low=0, high=0, ndcg_before=0, ndcg_after=0)
    return Manifest(
        release_id=name,
        created_at=NOW,
        base_model="tiny",
        parent=parent,
        dimension=4,
        encoder=EncoderConfig(pooling="mean", max_length=8),
        files={"config.json": FileEntry(sha256="0" * 64, size_bytes=1)},
        verdict=None if periods is None else Verdict(passed=True, figures=[*figures, old]),
    )


LINE = [
    release("base", None),
    release("one", "base", {"2026-01": (0.10, 0.30)}),
    release("two", "one", {"2026-01": (0.30, 0.26), "2026-02": (0.12, 0.35)}),
    release("three", "two", {"2026-01": (0.26, 0.24), "2026-02": (0.35, 0.36), "2026-03": (0.2, 0.4)}),
]


def test_each_release_has_a_row_with_what_its_child_measured_of_it() -> None:
    rows = known_by(LINE)
    assert [(one.release_id, one.newest) for one in rows] == [
        ("base", None),
        ("one", "2026-01"),
        ("two", "2026-02"),
        ("three", "2026-03"),
    ]
    assert rows[0].results == {"2026-01": 0.10}
    assert rows[1].results == {"2026-01": 0.30, "2026-02": 0.12}
    assert rows[2].results == {"2026-01": 0.26, "2026-02": 0.35, "2026-03": 0.2}


def test_backward_transfer_is_the_mean_change_of_what_was_once_new() -> None:
    assert backward_transfer(known_by(LINE)) == pytest.approx(((0.24 - 0.30) + (0.36 - 0.35)) / 2)
    assert backward_transfer(known_by(LINE[:3])) == pytest.approx(0.26 - 0.30)


def test_where_there_is_nothing_to_compare_there_is_no_figure() -> None:
    assert backward_transfer([]) is None
    assert backward_transfer(known_by(LINE[:1])) is None
    assert backward_transfer(known_by(LINE[:2])) is None
    again = release("again", "one", {"2026-01": (0.3, 0.2)})
    assert backward_transfer(known_by([*LINE[:2], again])) is None, "the same period, learned twice"
