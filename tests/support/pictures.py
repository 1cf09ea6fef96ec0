"""Pictures, a tiny CLIP of random weights, and a web server on loopback that is as rude as a test wants."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IMAGE_DIMENSION = 24


def png(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (48, 40)) -> bytes:
    """A picture of one colour with a white corner."""
    pixels = np.full((size[1], size[0], 3), colour, dtype=np.uint8)
    pixels[: size[1] // 3, : size[0] // 3] = 255
    return encoded(Image.fromarray(pixels), "PNG")


def encoded(image: Image.Image, form: str) -> bytes:
    """The file of a picture."""
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A few bytes whose head says that they are a picture of this size: a decompression bomb."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def write_tiny_clip(folder: Path) -> Path:
    """Write the model and answer its folder. It is the same at every call."""
    import torch
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    text = dict(
        **side, vocab_size=8, max_position_embeddings=8, bos_token_id=0, eos_token_id=1, pad_token_id=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        CLIPModel(
            CLIPConfig(
                text_config=text,
                vision_config=dict(**side, image_size=32, patch_size=8, initializer_range=0.3),
                projection_dim=IMAGE_DIMENSION,
            )
        ).save_pretrained(folder)
    processor: Any = CLIPImageProcessorPil
    processor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


class PictureServer:
    """Answers on loopback with what `pages` has for a path: a body, or a function of the request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pages: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """The address of a page, under any name of this machine."""
        return f"http://{host}:{self.port}{path}"


@contextmanager
def picture_server() -> Iterator[PictureServer]:
    """A server of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            page = found.pages.get(self.path)
            if callable(page):
                page(self)
                return
            self.send_response(200 if page is not None else 404)
            self.send_header("content-length", str(len(page or b"")))
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, format: str, *args: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            return  # a client that hangs up in the middle of a body is what is tested

    server = Server(("127.0.0.1", 0), Handler)
    found = PictureServer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10.0)
