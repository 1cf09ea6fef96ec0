"""app/commands/demo_queries.py: what the demonstration counts is counted right."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.commands.demo_queries import Load, Planted
from producers.shop import Shop

SHOP = Shop(7, products=200, shoppers=20, tastes="kinds")


class Answers(BaseHTTPRequestHandler):
    """Every third query fails."""

    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Answers.asked += 1
        body = json.dumps({"release_id": "first", "items": []}).encode()
        self.send_response(500 if Answers.asked % 3 == 0 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_queries_are_counted_by_who_answered_and_failed_ones_as_failed(address: str) -> None:
    load = Load(address, ["a", "b"])
    with load.running():
        while len(load.asked) < 6:
            time.sleep(0.01)
    asked, failed = len(load.asked), sum(one.release is None for one in load.asked)
    assert failed == asked // 3
    assert f"{asked - failed} by first; {failed} failed" in load.in_words("training")
    assert load.in_words("swap") == "none"


def test_queries_that_nobody_answers_have_failed() -> None:
    load = Load("http://127.0.0.1:9", ["a"])
    with load.running():
        while len(load.asked) < 2:
            time.sleep(0.01)
    assert all(one.release is None for one in load.asked)


def test_only_neighbours_of_other_kinds_are_counted() -> None:
    planted = Planted(SHOP)
    kind = {one.product_id: one.design.kind.noun for one in SHOP.listings}
    taste = SHOP.truth.taste_of
    item = SHOP.listings[0].product_id
    own = [one for one in kind if one != item and kind[one] == kind[item]]
    liked = [one for one in kind if kind[one] != kind[item] and taste[one] == taste[item]]
    others = [one for one in kind if taste[one] != taste[item]]
    assert own
    assert planted.share({item: [*own, liked[0], *others[:3]]}) == 0.25
    assert planted.share({item: own}) == 0
    assert planted.same(item, liked[0])
    assert not planted.same(item, own[0])
