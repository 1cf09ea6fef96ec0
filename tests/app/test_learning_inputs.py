"""app/learning_inputs.py: labelled pairs by line, and neighbours by the release that is to be trained."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.learning_inputs import labelled_pairs, neighbours_by_service
from app.settings import Settings
from model.examples import Labelled
from schemas.errors import Halt, Transient


def test_pairs_of_a_file_are_read_and_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"a": "x", "b": "y"}\n\n{"a": "x", "b": 3, "label": 0}\n')
    assert labelled_pairs(path) == [Labelled("x", "y", 1.0), Labelled("x", "3", 0.0)]
    assert labelled_pairs(None) == []
    for bad in (
        '{"a": "x"}',
        "[1]",
        "{",
        '{"a": "x", "b": "y", "label": 2}',
        '{"a": 1, "b": 2, "label": []}',
    ):
        path.write_text('{"a": "x", "b": "y"}\n' + bad + "\n")
        with pytest.raises(ValueError, match="line 2: expected an object with a, b"):
            labelled_pairs(path)


class Service(BaseHTTPRequestHandler):
    """Knows the items a and b, under the release `live`."""

    bodies: list[dict[str, object]] = []

    def do_GET(self) -> None:
        self._answer(200, {"release_id": "live"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Service.bodies.append(body)
        item = body["seeds"][0]["item_id"]
        if item == "unknown":
            self._answer(404, {"detail": "there is no item 'unknown'"})
            return
        near = [
            {"item_id": f"{item}{number}", "score": 0.9, "dimensions": {}, "item": view(f"{item}{number}")}
            for number in range(2)
        ]
        self._answer(200, {"items": near, "release_id": "live", "took_ms": 1.0})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def view(item: str) -> dict[str, object]:
    return {"item_id": item, "revision": 1, "title": item}


def at(url: str) -> Settings:
    return Settings.model_validate({"service": {"url": url}})


@pytest.fixture
def settings() -> Iterator[Settings]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield at(f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_the_service_is_asked_for_neighbours_by_content_and_may_not_know_an_item(
    settings: Settings, tmp_path: Path
) -> None:
    nearest = neighbours_by_service(settings, tmp_path, parent="live")
    assert nearest(["a", "unknown", "b"]) == {"a": ["a0", "a1"], "b": ["b0", "b1"]}
    assert all(body["weights"] == {"content": 1.0} for body in Service.bodies)


def test_neighbours_of_another_release_than_the_parent_are_refused(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(Halt, match="the index is that of release live"):
        neighbours_by_service(settings, tmp_path, parent="an older one")


def test_without_a_service_the_trainer_says_so(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="no service answers"):
        neighbours_by_service(at("http://127.0.0.1:9"), tmp_path, parent="live")
