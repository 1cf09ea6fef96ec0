"""A small Qdrant server for tests: the REST routes that adapters/index_server.py uses, over an edge shard.

Run it as a process (`python -m tests.support.qdrant_rest --folder F --port P`) or in a test with
`with QdrantRest(tmp_path) as server`. Bodies are validated by qdrant-client's own models, so what this server
accepts has the form that the real one documents; what it does not know it answers with 400, not with a guess.

POST /control {"mode": MODE, "seconds": S} makes it misbehave from now on for S seconds:

    refuse       the port is closed: connections are refused, those that stand are cut
    hang         nothing is answered until the time is over; then what was asked is done, however late
    unavailable  503 to everything
    lose_reply   the work is done and the connection cut instead of an answer
    ok           normal again
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import httpx
import orjson
import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.children import HOST, Child
from tests.support.qdrant_over_edge import Missing, QdrantOverEdge

VERSION = "1.19.0"
Mode = Literal["ok", "refuse", "hang", "unavailable", "lose_reply"]


class Control(BaseModel):
    """Body of POST /control."""

    mode: Mode
    seconds: float = 0.0


class _Lost(Response):
    """The head of an answer and never its body: the server then cuts the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


class Behaviour:
    """What the server does to requests right now, and until when."""

    def __init__(self) -> None:
        self.mode: Mode = "ok"
        self.until = 0.0
        self.refuse_seconds = 0.0
        self.stop: Callable[[], None] = lambda: None

    def now(self) -> Mode:
        """The mode, `ok` again once its time is over."""
        return self.mode if time.monotonic() < self.until else "ok"

    async def control(self, request: Request) -> Response:
        """POST /control."""
        asked = Control.model_validate_json(await request.body())
        if asked.mode == "refuse":
            self.refuse_seconds = asked.seconds
            self.stop()
        else:
            self.mode, self.until = asked.mode, time.monotonic() + asked.seconds
        return Response(b'{"result":true}')

    async def version(self, request: Request) -> Response:
        """GET /."""
        if self.now() == "unavailable":
            return _json(503, {"status": {"error": "Service unavailable"}})
        return _json(200, {"title": "qdrant - over edge, for tests", "version": VERSION, "commit": None})


def _json(status: int, body: Any) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")


def application(engine: QdrantOverEdge, behaviour: Behaviour, *, api_key: str = "") -> Starlette:
    """The ASGI application; `api_key` empty lets everybody in."""

    def route(path: str, method: str, work: Callable[[str, bytes], Any]) -> Route:
        async def answer(request: Request) -> Response:
            body = await request.body()
            if api_key and request.headers.get("api-key") != api_key:
                return _json(401, {"status": {"error": "Must provide an API key"}})
            if behaviour.now() == "unavailable":
                return _json(503, {"status": {"error": "Service unavailable"}})
            while behaviour.now() == "hang":
                await asyncio.sleep(0.02)
            status, reply = await run_in_threadpool(_done, work, request.path_params.get("name", ""), body)
            if behaviour.now() == "lose_reply":
                return _Lost()
            return Response(reply, status_code=status, media_type="application/json")

        return Route(path, answer, methods=[method])

    one = "/collections/{name}"
    return Starlette(
        routes=[
            Route("/", behaviour.version, methods=["GET"]),
            Route("/control", behaviour.control, methods=["POST"]),
            route("/aliases", "GET", engine.aliases),
            route("/collections", "GET", engine.collections),
            route("/collections/aliases", "POST", engine.move_aliases),
            route(one, "GET", engine.info),
            route(one, "PUT", engine.create),
            route(one, "DELETE", engine.drop),
            route(f"{one}/exists", "GET", engine.exists),
            route(f"{one}/index", "PUT", engine.index_field),
            route(f"{one}/points", "PUT", engine.upsert),
            route(f"{one}/points", "POST", engine.retrieve),
            route(f"{one}/points/scroll", "POST", engine.scroll),
            route(f"{one}/points/count", "POST", engine.count),
            route(f"{one}/points/delete", "POST", engine.delete),
            route(f"{one}/points/batch", "POST", engine.batch),
            route(f"{one}/points/query", "POST", engine.query),
            route(f"{one}/points/query/batch", "POST", engine.query_batch),
        ]
    )


def _done(work: Callable[[str, bytes], Any], name: str, body: bytes) -> tuple[int, bytes]:
    """Status and body; runs in a worker thread, the engine's own errors become 400 as the real server's."""
    try:
        return 200, orjson.dumps({"result": work(name, body), "status": "ok", "time": 0.0})
    except Missing as error:
        status, reason = 404, str(error)
    except (ValueError, ValidationError) as error:
        status, reason = 400, str(error)
    except Exception as error:
        if type(error) is not Exception:  # edge raises bare ones
            raise
        status, reason = 400, str(error)
    return status, orjson.dumps({"status": {"error": reason[:1000]}, "time": 0.0})


def serve(folder: Path, port: int, *, api_key: str = "") -> None:
    """Serve until a signal; a `refuse` closes the port for its time and opens it again."""
    engine, behaviour = QdrantOverEdge(folder), Behaviour()
    app = application(engine, behaviour, api_key=api_key)
    config = uvicorn.Config(
        app, log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    # uvicorn raises the signal that ended it once more: let that one pass, so that the shard is closed
    signal.signal(signal.SIGTERM, lambda *_: None)
    while True:
        server = uvicorn.Server(config)

        def stop(server: uvicorn.Server = server) -> None:
            server.should_exit = True

        behaviour.stop = stop
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        server.run(sockets=[listener])
        listener.close()
        if not behaviour.refuse_seconds:
            break
        time.sleep(behaviour.refuse_seconds)
        behaviour.refuse_seconds = 0.0
    engine.shards.close()


class QdrantRest(Child):
    """The server as a child process: `kill`, `pause`, `restart`, and `misbehave`."""

    name = "qdrant-rest"
    #: The client's models alone take three seconds of a core to import, and cores may be shared.
    start_timeout_seconds = 60.0

    def __init__(self, folder: Path, *, port: int = 0, api_key: str = "") -> None:
        super().__init__(folder, port=port)
        self._api_key = api_key

    @property
    def url(self) -> str:
        """What SIMSTREAM_QDRANT__URL would be."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        arguments = ["--folder", str((self.folder / "qdrant").resolve()), "--port", str(self.port)]
        return [sys.executable, "-m", "tests.support.qdrant_rest", *arguments]

    def environment(self) -> dict[str, str]:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        return {**os.environ, "PYTHONPATH": path, "TEST_QDRANT_API_KEY": self._api_key}

    def ready(self) -> bool:
        try:
            return httpx.get(self.url, timeout=1.0).status_code == 200
        except httpx.TransportError:
            return False

    def misbehave(self, mode: Mode, *, seconds: float) -> None:
        """From now on, for so long; see the module's docstring."""
        body = {"mode": mode, "seconds": seconds}
        httpx.post(f"{self.url}/control", json=body, timeout=5.0).raise_for_status()


def main() -> None:
    """Command line of the process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    # not an argument: command lines are public
    serve(arguments.folder, arguments.port, api_key=os.environ.get("TEST_QDRANT_API_KEY", ""))


if __name__ == "__main__":
    main()
