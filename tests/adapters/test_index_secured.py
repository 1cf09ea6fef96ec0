"""A Qdrant behind TLS that asks for a key: only settings say so, and neither is shown.

The server is a few lines that answer one route as Qdrant does; what is tested is certificates and a header.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from adapters.index_server import ServerIndex
from app.settings import load_settings
from schemas.errors import Halt, Transient
from tests.support.secured import Certificates, make_certificates

KEY = "qdrant-hunter2"


async def aliases(scope: Any, receive: Any, send: Any) -> None:
    """GET /aliases, for those who have the key."""
    known = dict(scope["headers"]).get(b"api-key") == KEY.encode()
    body = (
        b'{"result": {"aliases": [{"alias_name": "items", "collection_name": "items__r1__1"}]}, '
        b'"status": "ok", "time": 0}'
        if known
        else b'{"status": {"error": "forbidden"}, "time": 0}'
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200 if known else 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of the server."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def url(certificates: Certificates) -> Iterator[str]:
    """Where the server is."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    config = uvicorn.Config(
        aliases,
        log_config=None,
        lifespan="off",
        ssl_certfile=str(certificates.certificate),
        ssl_keyfile=str(certificates.key),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10.0)


def index_of(url: str, key: str, folder: Path) -> ServerIndex:
    """Opened as the service does, its key in a file."""
    (folder / "key").write_text(key + "\n")
    settings = load_settings(
        {"SIMSTREAM_QDRANT__URL": url, "SIMSTREAM_QDRANT__API_KEY_FILE": str(folder / "key")}
    )
    assert "hunter2" not in str(settings)
    return ServerIndex.connect(settings.qdrant)


def test_with_its_key_over_tls_the_index_answers(
    url: str, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    index = index_of(url, KEY, tmp_path)
    assert index.resolve("items") == "items__r1__1"
    index.close()


def test_with_another_key_it_is_refused_without_being_repeated(
    url: str, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    index = index_of(url, "wrong-hunter2", tmp_path)
    with pytest.raises(Halt, match="SIMSTREAM_QDRANT__API_KEY") as refused:
        index.resolve("items")
    assert "hunter2" not in str(refused.value)
    index.close()


def test_a_server_that_nobody_vouches_for_never_sees_the_key(url: str, tmp_path: Path) -> None:
    index = index_of(url, KEY, tmp_path)
    with pytest.raises(Transient, match="certificate verify failed"):
        index.resolve("items")
    index.close()
