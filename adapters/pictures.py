"""Bytes that should be a picture become numbers, or are refused by name.

Reads   the bytes of one file
Writes  nothing
Never   believes a name or a content type: the file itself says what it is, in one of four formats

Pillow reads the head first; a picture of too many pixels is refused before one of them is decoded. Pictures
are decoded one at a time, so that memory is bounded by the largest, and leave with at most `side` pixels
either way.
"""

from __future__ import annotations

import io
import threading

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from adapters.picture_fetch import Fetcher, NoPicture
from schemas.events import Frozen

#: Decoders that a file is offered to. Others of Pillow's (EPS runs a program) never see it.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
#: A picture's pixels: red, green, blue, each 0 to 255, shape (height, width, 3).
Pixels = NDArray[np.uint8]


class PictureSettings(Frozen):
    """What a picture may be, and the size in pixels that it is kept at until it is encoded."""

    max_pixels: int = Field(default=25_000_000, ge=10_000, le=80_000_000)
    side: int = Field(default=512, ge=32, le=2_048)


class PictureReader:
    """Fetches and decodes. Thread-safe."""

    def __init__(self, fetcher: Fetcher, settings: PictureSettings) -> None:
        self._fetcher = fetcher
        self._settings = settings
        self._one_at_a_time = threading.Lock()

    def read(self, url: str) -> Pixels:
        """The picture behind `url`. Raises NoPicture."""
        body = self._fetcher.fetch(url)
        with self._one_at_a_time:
            return decoded(body, self._settings)


def decoded(body: bytes, settings: PictureSettings) -> Pixels:
    """The first frame, in RGB on white, at most `settings.side` pixels wide and high. Raises NoPicture."""
    from PIL import Image, UnidentifiedImageError  # of the extra `images`

    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
    except UnidentifiedImageError:
        raise NoPicture("kind", f"no picture in {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # above our own limit
        raise NoPicture("pixels", str(error)) from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise NoPicture("damaged", str(error)) from error
    with image:
        width, height = image.size
        if width * height > settings.max_pixels:
            raise NoPicture("pixels", f"{width} x {height} are more than {settings.max_pixels}")
        if width < 1 or height < 1:
            raise NoPicture("damaged", "no pixel at all")
        side = settings.side
        try:
            if image.format == "JPEG":  # decoded at a half, a quarter, an eighth where that is enough
                image.draft("RGB", (side, side))
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                seen = image.convert("RGBA")
                seen.thumbnail((side, side))
                whole = Image.new("RGB", seen.size, "white")
                whole.paste(seen, mask=seen.getchannel("A"))
            else:
                whole = image.convert("RGB")
                whole.thumbnail((side, side))
            return np.asarray(whole, dtype=np.uint8).copy()
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            IndexError,
            Image.DecompressionBombError,
        ) as error:
            raise NoPicture("damaged", str(error)) from error
