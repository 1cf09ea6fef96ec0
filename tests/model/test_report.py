"""model/report.py: everything a run has to say is on one page that asks nobody, and no text is markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np
from numpy.typing import NDArray

from model.report import changed_most, render
from model.transfer import Known
from schemas.releases import FigureOf, Training, Verdict

EVIL = "<script>alert('lamp')</script>\" onload=\"x"


def figure(name: str, before: float, after: float, slice_name: str = "", width: float = 0.02) -> FigureOf:
    return FigureOf(
        name=name,
        slice=slice_name,
        queries=300,
        before=before,
        after=after,
        low=after - before - width,
        high=after - before + width,
        ndcg_before=before / 2,
        ndcg_after=after / 2,
    )


VERDICT = Verdict(
    passed=False,
    reasons=[f"a slice lost more than 0.05 on new window, category {EVIL}"],
    figures=[
        figure("new window", 0.20, 0.30),
        figure("old", 0.25, 0.24),
        figure("new window", 0.30, 0.10, "category Tools"),
        figure("new window", 0.30, 0.29, "cold"),
        figure("new window", 0.30, 0.40, "warm"),
        figure("period 2026-01-05", 0.1, 0.2),
    ],
)
TRAINING = Training(
    run="20261125-120000-abcdef",
    recipe={"seed": 7, "method": "full"},
    data={
        "sessions": 1234,
        "new window's sessions begin": "2026-11-20T00:00+00:00 to 2026-11-25T00:00+00:00",
    },
    versions={"torch": "9.9.9"},
    seconds=61.5,
    steps=40,
    curves=[{"step": step, "loss": 4.0 - step / 20} for step in range(0, 40, 4)]
    + [{"step": 20, "eval_ndcg_at_10": 0.2}, {"step": 40, "eval_ndcg_at_10": 0.3}],
)
LINE = [
    Known("base", {"2026-01-05": 0.1}, None),
    Known("first", {"2026-01-05": 0.3, "2026-01-12": 0.2}, "2026-01-05"),
    Known("second", {"2026-01-05": 0.25, "2026-01-12": 0.4}, "2026-01-12"),
]


def vectors(seed: int) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=(60, 8))
    unit: NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


TEXTS = [f"{EVIL} {number}" for number in range(60)]


def encoder(found: NDArray[np.float32]) -> object:
    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        return found[[int(text.rsplit(" ", 1)[1]) for text in texts]]

    return encode


def page() -> str:
    changed = changed_most(TEXTS, before=encoder(vectors(1)), after=encoder(vectors(2)))  # type: ignore[arg-type]
    return render(
        run=TRAINING.run, parent="first", verdict=VERDICT, training=TRAINING, changed=changed, line=LINE
    )


class Seen(HTMLParser):
    """Tags, attributes and the text between them, as a browser would take them."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(html: str) -> Seen:
    parser = Seen()
    parser.feed(html)
    parser.close()
    return parser


def test_a_text_of_the_shop_is_never_markup() -> None:
    found = seen(page())
    assert found.open == []
    assert "script" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    # It is there, as text: in the reason, and in the neighbours.
    assert found.text.count(EVIL) > 20
    # The check sees what it is to see.
    assert "script" in seen(f"<p>{EVIL}</p>").tags


def test_it_asks_no_host_for_anything() -> None:
    html = page()
    assert not re.findall(r"(?:https?:)?//\w", html)
    assert not re.findall(r"@import|url\(|<link|<img|<iframe", html)
    assert {name for name, _ in seen(html).attributes} & {"src", "href", "srcset", "action"} == set()
    assert "default-src 'none'" in html


def test_it_has_every_part() -> None:
    html = page()
    text = seen(html).text
    for part in (
        "The gate refuses it",
        "0.2000",
        "0.3000",
        "training loss",
        "NDCG@10 on validation",
        "2026-01-12",
        "Backward transfer -0.0500",
        "torch",
        "9.9.9",
        "1234",
        '"method": "full"',
        "sessions begin",
    ):
        assert part in text, part
    assert html.count("<details") == 20
    assert "prefers-color-scheme: dark" in html
    assert "width=device-width" in html


def test_slices_that_lost_are_listed_worst_first_and_no_others() -> None:
    html = page()
    lost = html[html.index("Slices that lost") : html.index("Curves")]
    assert lost.index("category Tools") < lost.index("new window, cold")
    assert "warm" not in lost
    # Surely lost is marked, perhaps lost is not.
    assert lost.count('<circle class="bad"') == 1
    assert lost.count('<circle class="even"') == 1


def test_the_items_that_changed_most_come_first_and_those_that_did_not_are_left_out() -> None:
    old, new = vectors(1), vectors(1)
    # Each of these three goes where another was: their neighbours change most.
    new[[3, 4, 5]] = old[[40, 41, 42]] * np.float32(1.0)
    count, found = changed_most(TEXTS, before=encoder(old), after=encoder(new))  # type: ignore[arg-type]
    assert count == 60
    assert len(found) == 20
    kept = [one.kept for one in found]
    assert kept == sorted(kept)
    assert {int(one.text.rsplit(" ", 1)[1]) for one in found[:3]} == {3, 4, 5}
    for one in found:
        assert sum(other for _, other in one.before) == 10 - one.kept
    assert changed_most(TEXTS, before=encoder(old), after=encoder(old)) == (60, [])  # type: ignore[arg-type]


def test_a_run_that_was_not_measured_has_a_report_all_the_same() -> None:
    html = render(run="r", parent="p", verdict=Verdict(passed=False, reasons=["weight 'x' is not finite"]))
    text = seen(html).text
    assert "weight 'x' is not finite" in text
    assert "Nothing was measured" in text
    assert "It was not trained to the end" in text
