"""adapters/picture_fetch.py, adapters/pictures.py: what is fetched and decoded, and all that is refused."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpcore
import numpy as np
import pytest
from PIL import Image

from adapters.picture_fetch import Fetcher, FetchSettings, NoPicture, is_public
from adapters.pictures import PictureReader, PictureSettings, decoded
from tests.support.pictures import PictureServer, encoded, picture_server, png, png_that_claims

LIMITS = PictureSettings(max_pixels=1_000_000, side=64)


@pytest.fixture(scope="module")
def server() -> Iterator[PictureServer]:
    with picture_server() as running:
        yield running


def on_loopback_too(address: str) -> bool:
    """What a test allows itself, and no setting can."""
    return address == "127.0.0.1" or is_public(address)


def fetcher(server: PictureServer, **more: Any) -> Fetcher:
    fields: dict[str, Any] = {"max_bytes": 200_000, "seconds": 60.0, "ports": (80, 443, server.port), **more}
    return Fetcher(FetchSettings(**fields), public=on_loopback_too)


def refused(fetch: Any, url: str) -> str:
    with pytest.raises(NoPicture) as caught:
        fetch(url)
    return caught.value.reason


# --- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
        *(
            (address, False)
            for address in (
                *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
                *("100.64.0.1", "0.0.0.1", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1"),
                *("198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1"),
                *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1"),
                *("2001:db8::1", "2001::1", "not an address"),
            )
        ),
    ],
)
def test_only_addresses_of_the_public_internet_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://localhost/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.1.2.3/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:10.0.0.1]/a.png",
        "http://2130706433/a.png",
        "http://0x7f.1/a.png",
    ],
)
def test_a_private_loopback_or_link_local_address_is_never_connected_to(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connected(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connected)
    assert refused(Fetcher(FetchSettings()).fetch, url) == "address"


def test_a_server_on_loopback_is_refused_without_the_allowance_and_never_asked(server: PictureServer) -> None:
    server.pages["/own.png"] = png()
    assert refused(Fetcher(FetchSettings(ports=(server.port,))).fetch, server.url("/own.png")) == "address"
    assert "/own.png" not in server.asked
    assert fetcher(server).fetch(server.url("/own.png")) == png()


def test_the_connection_goes_to_the_address_that_was_checked(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers differently the second time (DNS rebinding) is asked once."""
    server.pages["/once.png"] = png()
    answers = iter([["127.0.0.1"], ["10.9.9.9"]])
    resolve, connect = socket.getaddrinfo, httpcore.SyncBackend.connect_tcp
    seen: list[str] = []

    def resolved(host: str, port: int, *more: Any, **named: Any) -> list[Any]:
        if host == "pictures.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in next(answers)]
        return list(resolve(host, port, *more, **named))

    def recorded(self: Any, host: str, port: int, **more: Any) -> httpcore.NetworkStream:
        seen.append(host)
        return connect(self, host, port, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", recorded)
    assert fetcher(server).fetch(server.url("/once.png", host="pictures.example")) == png()
    assert seen == ["127.0.0.1"]
    # Asked again, the name is private by now.
    assert refused(fetcher(server).fetch, server.url("/once.png", host="pictures.example")) == "address"
    assert seen == ["127.0.0.1"]


def test_a_name_with_a_public_and_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(host: str, port: int, **_: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("93.184.216.34", "10.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    assert refused(Fetcher(FetchSettings()).fetch, "http://pictures.example/a.png") == "address"


# --- redirects, statuses, urls ---------------------------------------------------------------------


def redirect(target: str, status: int = 302) -> Any:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("location", target)
        request.send_header("content-length", "0")
        request.end_headers()

    return answer


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://10.0.0.1/a.png", "address"),
        ("http://169.254.169.254/latest/meta-data/", "address"),
        ("//192.168.0.1/a.png", "address"),
        ("file:///etc/passwd", "url"),
        ("ftp://pictures.example/a.png", "url"),
        ("http://user:word@pictures.example/a.png", "url"),
        ("http://93.184.216.34:22/", "url"),
        ("/loop.png", "redirects"),
    ],
)
def test_where_a_redirect_leads_is_checked_as_anything_else(
    server: PictureServer, target: str, reason: str
) -> None:
    server.pages["/loop.png"] = redirect(target)
    assert refused(fetcher(server).fetch, server.url("/loop.png")) == reason


def test_a_few_redirects_are_followed(server: PictureServer) -> None:
    server.pages |= {
        "/1": redirect("/2", 301),
        "/2": redirect("3", 307),
        "/3": redirect("/4", 308),
        "/4": png(),
    }
    assert fetcher(server).fetch(server.url("/1")) == png()
    assert refused(fetcher(server, redirects=2).fetch, server.url("/1")) == "redirects"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "url"),
        ("a.png", "url"),
        ("javascript:alert(1)", "url"),
        ("http:///a.png", "url"),
        ("http://93.184.216.34:6379/", "url"),
        ("http://h/" + "a" * 5_000, "url"),
        ("http://nowhere.invalid/a.png", "unreachable"),
        ("http://" + "a" * 70 + ".example/", "unreachable"),
    ],
)
def test_what_is_no_address_of_the_web_is_refused(url: str, reason: str) -> None:
    assert refused(Fetcher(FetchSettings()).fetch, url) in (reason, "url")


@pytest.mark.parametrize(
    ("status", "reason", "passing"),
    [(404, "status", False), (403, "status", False), (503, "busy server", True)],
)
def test_only_a_server_that_may_recover_is_asked_again(
    server: PictureServer, status: int, reason: str, passing: bool
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("content-length", "0")
        request.end_headers()

    server.pages["/status"] = answer
    with pytest.raises(NoPicture) as caught:
        fetcher(server).fetch(server.url("/status"))
    assert (caught.value.reason, caught.value.passing) == (reason, passing)


# --- bodies ----------------------------------------------------------------------------------------


def endless(sent: list[int], *, length: int | None) -> Any:
    """A body of a gigabyte, told or not, and how much of it went out."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if length is not None:
            request.send_header("content-length", str(length))
        request.end_headers()
        block = b"\x89PNG" + b"x" * 65_532
        try:
            for _ in range(16_384):
                request.wfile.write(block)
                sent.append(len(block))
        except OSError:
            return

    return answer


@pytest.mark.parametrize("length", [2**30, None], ids=["told", "untold"])
def test_a_body_of_a_gigabyte_is_left_after_the_limit(server: PictureServer, length: int | None) -> None:
    sent: list[int] = []
    server.pages["/big"] = endless(sent, length=length)
    assert refused(fetcher(server).fetch, server.url("/big")) == "size"
    # What both kernels hold may have gone out beyond the limit; not a gigabyte.
    assert sum(sent) < 50_000_000


def test_a_body_that_says_less_than_it_sends_is_cut_at_what_it_said(server: PictureServer) -> None:
    server.pages["/lie"] = endless([], length=100)
    assert len(fetcher(server).fetch(server.url("/lie"))) == 100


def test_a_packed_body_is_not_unpacked(server: PictureServer) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-encoding", "gzip")
        request.send_header("content-length", "4")
        request.end_headers()
        request.wfile.write(b"\x1f\x8b\x08\x00")

    server.pages["/packed"] = answer
    assert refused(fetcher(server).fetch, server.url("/packed")) == "packed"


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_server_that_drips_is_left_when_the_time_is_over(server: PictureServer, part: str) -> None:
    ended = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"" if part == "head" else b"\r\n"))
        try:
            while not ended.is_set():
                request.wfile.write(b"x" if part == "body" else b"x: y\r\n")
                request.wfile.flush()
                time.sleep(0.02)
        except OSError:
            ended.set()

    server.pages["/drip"] = answer
    # Each byte comes well within any wait for one byte: it is the whole that has its time.
    assert refused(fetcher(server, seconds=0.4).fetch, server.url("/drip")) == "time"
    assert ended.wait(60.0), "the connection was left open"


def test_a_connection_that_ends_early_is_named(server: PictureServer) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        request.close_connection = True

    server.pages["/half"] = answer
    assert refused(fetcher(server).fetch, server.url("/half")) == "unreachable"


# --- what is in them -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_picture_comes_as_small_rgb_pixels(form: str) -> None:
    image = Image.new("RGB", (400, 200), (250, 0, 0))
    found = decoded(encoded(image, form), LIMITS)
    assert found.shape == (32, 64, 3)
    assert found.dtype == np.uint8
    assert abs(found.astype(int) - [250, 0, 0]).max() < 8


def test_what_is_transparent_is_white() -> None:
    for image in (
        Image.new("RGBA", (20, 20), (0, 0, 0, 0)),
        Image.new("LA", (20, 20), (0, 0)),
    ):
        assert decoded(encoded(image, "PNG"), LIMITS).min() == 255


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "kind"),
        (b"<html>not a picture</html>", "kind"),
        (b"title,price\nlamp,3\n" * 100, "kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "kind"),
        (png()[:60], "damaged"),
        (png(size=(300, 300))[:-40], "damaged"),
        (png_that_claims(1_200, 1_000), "pixels"),
        (png_that_claims(60_000, 60_000), "pixels"),
        (png_that_claims(900, 900), "damaged"),
    ],
)
def test_bombs_renamed_files_and_halves_are_refused_by_name(body: bytes, reason: str) -> None:
    with pytest.raises(NoPicture) as caught:
        decoded(body, LIMITS)
    assert caught.value.reason == reason


def test_a_format_of_pillow_that_is_not_of_the_web_is_not_opened() -> None:
    with pytest.raises(NoPicture, match="kind"):
        decoded(encoded(Image.new("RGB", (9, 9)), "BMP"), LIMITS)


def test_a_renamed_text_file_behind_a_name_and_a_type_of_a_picture_is_refused(server: PictureServer) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-type", "image/png")
        request.send_header("content-length", "5")
        request.end_headers()
        request.wfile.write(b"hello")

    server.pages["/a.png"] = answer
    assert refused(PictureReader(fetcher(server), LIMITS).read, server.url("/a.png")) == "kind"
    server.pages["/b.txt"] = png()
    assert PictureReader(fetcher(server), LIMITS).read(server.url("/b.txt")).shape == (40, 48, 3)
