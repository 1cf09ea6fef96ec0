"""consumers/pictures.py: what is fetched once, tried again a few times, refused for good, and bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from adapters.metrics import PICTURES_TOTAL
from adapters.picture_fetch import NoPicture, Reason
from consumers.assembly import Pictured, assemble
from consumers.pictures import ImageSettings, Marks, Pictures
from model.text import ProductText
from schemas.events import ProductUpserted
from schemas.items import ItemState
from schemas.vectors import IMAGE, Point
from tests.service.shop import NOW, product

MARKS = Marks("a model")
QUICK = ImageSettings(attempts=3, pause_seconds=0.01, fetchers=2, batch=4)


class Shelf:
    """Pictures by URL: a number, or the reasons why there is none, one at each attempt."""

    def __init__(self, known: Mapping[str, int | list[Reason]]) -> None:
        self.known = dict(known)
        self.read_urls: list[str] = []
        self.open = threading.Event()
        self.open.set()

    def read(self, url: str) -> Any:
        self.read_urls.append(url)
        assert self.open.wait(60.0)
        found = self.known[url]
        if isinstance(found, list):
            if found:
                raise NoPicture(found.pop(0), "as the test wants it")
            found = 1
        return np.full((2, 2, 3), found, dtype=np.uint8)


class Counting:
    """Implements schemas.vectors.PictureEncoder."""

    dimension = 2

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.fails = False

    def encode(self, pictures: Sequence[Any]) -> list[list[float]]:
        self.batches.append(len(pictures))
        if self.fails:
            raise RuntimeError("no memory")
        return [[1.0, float(one[0, 0, 0])] for one in pictures]


def shown(name: str, url: str | None) -> ProductUpserted:
    return product(name, f"Lamp {name}", image_url=url)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.005)


class Stand:
    """Pictures with what they were handed, and what they announced."""

    def __init__(self, shelf: Shelf, settings: ImageSettings) -> None:
        self.shelf, self.encoder = shelf, Counting()
        self.announced: list[str] = []
        self.pictures = Pictures(
            marks=MARKS,
            reader=shelf,
            encoder=self.encoder,
            announce=self.announced.append,
            settings=settings,
        )


Make = Callable[..., Stand]


@pytest.fixture
def stand() -> Iterator[Make]:
    made: list[Stand] = []

    def make(known: Mapping[str, int | list[Reason]], settings: ImageSettings = QUICK) -> Stand:
        made.append(Stand(Shelf(known), settings))
        return made[-1]

    yield make
    for one in made:
        one.shelf.open.set()
        one.pictures.close()


def outcome(name: str) -> float:
    return float(PICTURES_TOTAL.labels(outcome=name)._value.get())  # noqa: SLF001


def test_a_picture_is_fetched_once_for_all_items_that_show_it(stand: Make) -> None:
    here = stand({"u1": 7})
    here.shelf.open.clear()
    items = [shown(name, "u1") for name in ("a", "b", "a")]
    for one in items:
        here.pictures.want(one.product_id, one)
    here.shelf.open.set()
    until(lambda: len(here.announced) == 2)
    assert sorted(here.announced) == ["a", "b"]
    assert here.shelf.read_urls == ["u1"]
    assert here.pictures.of(items[0]) == Pictured(MARKS.of(items[0]), vector=[1.0, 7.0])
    # What stands on a point by now is kept no longer.
    here.pictures.written([str(MARKS.of(items[0]))])
    assert here.pictures.of(items[0]).vector is None


def test_an_item_without_a_picture_has_no_mark_and_nothing_is_fetched(stand: Make) -> None:
    here = stand({})
    for url in (None, "", "  "):
        here.pictures.want("a", shown("a", url))
        assert here.pictures.of(shown("a", url)) == Pictured(None)
    assert here.shelf.read_urls == []


@pytest.mark.parametrize("reason", ["address", "size", "kind", "pixels", "damaged"])
def test_what_will_not_change_is_refused_at_once_and_counted(stand: Make, reason: Reason) -> None:
    before = outcome(reason)
    here = stand({"u1": [reason, reason]})
    here.pictures.want("a", shown("a", "u1"))
    until(lambda: here.announced == ["a"])
    assert here.shelf.read_urls == ["u1"]
    assert here.pictures.of(shown("a", "u1")).refused == reason
    assert outcome(reason) == before + 1


def test_what_may_pass_is_tried_again_and_found(stand: Make) -> None:
    here = stand({"u1": ["time", "unreachable"]})
    here.pictures.want("a", shown("a", "u1"))
    until(lambda: here.announced == ["a"])
    assert here.shelf.read_urls == ["u1"] * 3
    assert here.pictures.of(shown("a", "u1")).vector == [1.0, 1.0]


def test_attempts_end(stand: Make) -> None:
    here = stand({"u1": ["busy server"] * 9})
    here.pictures.want("a", shown("a", "u1"))
    until(lambda: here.announced == ["a"])
    assert here.shelf.read_urls == ["u1"] * QUICK.attempts
    assert here.pictures.of(shown("a", "u1")).refused == "busy server"


def test_pictures_are_encoded_in_batches(stand: Make) -> None:
    here = stand({f"u{number}": number for number in range(24)}, QUICK.model_copy(update={"fetchers": 8}))
    for number in range(24):
        here.pictures.want(f"i{number}", shown(f"i{number}", f"u{number}"))
    until(lambda: len(here.announced) == 24)
    assert sum(here.encoder.batches) == 24
    assert max(here.encoder.batches) <= QUICK.batch


def test_more_than_may_wait_is_left_for_reconcile(stand: Make) -> None:
    before = outcome("left for reconcile")
    here = stand({f"u{number}": 1 for number in range(9)}, QUICK.model_copy(update={"waiting": 3}))
    here.shelf.open.clear()
    for number in range(9):
        here.pictures.want(f"i{number}", shown(f"i{number}", f"u{number}"))
    here.shelf.open.set()
    until(lambda: len(here.announced) == 3)
    assert outcome("left for reconcile") == before + 6
    assert sorted(here.announced) == ["i0", "i1", "i2"]


def test_an_encoder_that_fails_ends_nothing(stand: Make) -> None:
    here = stand({"u1": 1, "u2": 2})
    here.encoder.fails = True
    here.pictures.want("a", shown("a", "u1"))
    until(lambda: here.encoder.batches == [1])
    until(lambda: here.pictures._jobs == {})  # noqa: SLF001
    here.encoder.fails = False
    for name, url in (("b", "u2"), ("a", "u1")):
        here.pictures.want(name, shown(name, url))
    until(lambda: sorted(here.announced) == ["a", "b"])


# --- on the point ----------------------------------------------------------------------------------

RECIPE = ProductText()


def assembled(event: ProductUpserted, point: Point | None, picture: Pictured | None) -> Any:
    from consumers.assembly import Encoded

    text = RECIPE.fingerprint(event)
    return assemble(
        event.product_id,
        ItemState(event.product_id, 1, event.occurred_at, event),
        point,
        recipe=RECIPE,
        encoded={text: Encoded(text, [1.0, 0.0])},
        now=NOW,
        picture=picture,
    )


def test_an_item_is_written_without_its_picture_which_comes_later() -> None:
    event = shown("a", "u1")
    mark = MARKS.of(event)
    first = assembled(event, None, Pictured(mark))
    assert first.lacks_picture
    assert first.differs
    assert IMAGE not in first.point.vectors
    then = assembled(event, first.point, Pictured(mark, vector=[0.0, 1.0]))
    assert then.point.vectors[IMAGE] == [0.0, 1.0]
    assert then.moved == (IMAGE,)
    assert not assembled(event, then.point, Pictured(mark)).differs
    # Where pictures are off, what stands is left alone.
    assert not assembled(event, then.point, None).differs


def test_a_refused_picture_is_marked_and_not_asked_for_again() -> None:
    event = shown("a", "u1")
    mark = MARKS.of(event)
    found = assembled(event, None, Pictured(mark, refused="kind"))
    assert IMAGE not in found.point.vectors
    assert found.point.payload["fingerprints"][IMAGE] == f"{mark}:kind"
    again = assembled(event, found.point, Pictured(mark))
    assert not again.differs
    assert not again.lacks_picture


def test_a_new_url_keeps_the_old_vector_until_the_new_one_is_there_and_none_drops_it() -> None:
    old = shown("a", "u1")
    stands = assembled(old, None, Pictured(MARKS.of(old), vector=[0.0, 1.0])).point
    new = shown("a", "u2")
    waiting = assembled(new, stands, Pictured(MARKS.of(new)))
    assert waiting.lacks_picture
    assert waiting.point.vectors[IMAGE] == [0.0, 1.0]  # its new context is written around it
    none = shown("a", None)
    assert IMAGE not in assembled(none, stands, Pictured(None)).point.vectors
    assert IMAGE not in assembled(none, stands, Pictured(None)).point.payload["fingerprints"]
