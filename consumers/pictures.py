"""Pictures of items become vectors, beside the stream: no hint waits for one.

Reads   pictures behind `image_url`, through the reader it is handed
Writes  publishes ItemChanged on the bulk lane when a picture's vector, or its refusal, is there to be written
Never   writes the index: consumers/point_writer.py asks for what is there when it looks at the item again

A picture's mark names the model and the URL. Where another attempt may help, `attempts` are made, each pause
four times as long as the one before; after the last, and at once where none would help, the mark on the point
says why there is no vector, and nobody asks again until the URL changes or the collection is rebuilt. What is
in hand is lost with the process, and more than `waiting` is left out: the point has no mark then, and
`simstream reconcile` announces it.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from typing import Any, Protocol

from pydantic import Field

from adapters.metrics import PICTURES_TOTAL
from adapters.picture_fetch import FetchSettings, NoPicture
from adapters.pictures import PictureSettings
from consumers.assembly import Pictured
from schemas.errors import Transient
from schemas.events import Frozen, Product
from schemas.items import PictureMark, digest
from schemas.vectors import DenseVector, PictureEncoder

log = logging.getLogger(__name__)

_MODEL_CHARS = 6
_GROWTH = 4.0
_WAIT_SECONDS = 0.2


class ImageSettings(Frozen):
    """The dimension `image`: off while `model` (a name of the hub, or a folder) is empty.

    `fetchers` pictures are fetched at a time and encoded by `batch`; at most `waiting` are in hand.
    """

    model: str = ""
    fetch: FetchSettings = FetchSettings()
    decode: PictureSettings = PictureSettings()
    fetchers: int = Field(default=4, ge=1, le=64)
    batch: int = Field(default=16, ge=1, le=256)
    waiting: int = Field(default=10_000, ge=1)
    attempts: int = Field(default=4, ge=1, le=10)
    pause_seconds: float = Field(default=30.0, gt=0)


class Reader(Protocol):
    """Gets a picture."""

    def read(self, url: str) -> Any:
        """Its pixels, (height, width, 3), uint8. Raises NoPicture."""
        ...


@dataclass(slots=True)
class _Job:
    """One picture in hand, and the items that show it."""

    mark: str
    url: str
    items: set[str] = field(default_factory=set)
    attempts: int = 0


class Pictures:
    """Fetches and encodes what is wanted, on threads of its own. Thread-safe."""

    def __init__(
        self,
        *,
        marks: Marks,
        reader: Reader,
        encoder: PictureEncoder,
        announce: Callable[[str], None],
        settings: ImageSettings,
    ) -> None:
        self._marks = marks
        self._reader = reader
        self._encoder = encoder
        self._announce = announce
        self._settings = settings
        self._changed = threading.Condition()
        self._jobs: dict[str, _Job] = {}
        self._due: list[tuple[float, str]] = []
        #: A vector, or why there is none, by mark, until the writer has taken it; the oldest goes first.
        self._found: dict[str, DenseVector | str] = {}
        self._pixels: Queue[tuple[_Job, Any]] = Queue(maxsize=2 * settings.batch)
        self._closed = False
        loops = [self._fetch] * settings.fetchers + [self._encode]
        self._threads = [
            threading.Thread(target=loop, name=f"pictures-{number}", daemon=True)
            for number, loop in enumerate(loops)
        ]
        for thread in self._threads:
            thread.start()

    def of(self, product: Product) -> Pictured:
        """The picture of a product: its mark, and what has become of it as far as that is in hand."""
        mark = self._marks.of(product)
        with self._changed:
            found = self._found.get(mark) if mark is not None else None
        if isinstance(found, str):
            return Pictured(mark, refused=found)
        return Pictured(mark, vector=found)

    def want(self, product_id: str, product: Product) -> None:
        """Get the picture, and announce the item when there is something to write."""
        mark = self._marks.of(product)
        if mark is None or product.image_url is None:
            return
        with self._changed:
            if mark in self._found:
                return  # it is written next time
            job = self._jobs.get(mark)
            if job is None:
                if len(self._jobs) >= self._settings.waiting:
                    PICTURES_TOTAL.labels(outcome="left for reconcile").inc()
                    return
                job = self._jobs[mark] = _Job(mark, product.image_url)
                heapq.heappush(self._due, (time.monotonic(), mark))
                self._changed.notify()
            job.items.add(product_id)

    def written(self, fingerprints: Sequence[str]) -> None:
        """These stand on points by now: what was kept for them can go."""
        with self._changed:
            for fingerprint in fingerprints:
                self._found.pop(PictureMark.read(fingerprint).picture, None)

    def close(self) -> None:
        """End the threads; pictures in hand are left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(self._settings.fetch.seconds + 10.0)

    def _fetch(self) -> None:
        while (job := self._next()) is not None:
            try:
                pixels = self._reader.read(job.url)
            except NoPicture as error:
                self._refused(job, error)
                continue
            except Exception:
                log.exception("picture_failed url=%s", job.url)
                self._refused(job, NoPicture("damaged", "the decoder failed"))
                continue
            self._put(job, pixels)

    def _next(self) -> _Job | None:
        """The job that is due; None when it is time to end."""
        with self._changed:
            while not self._closed:
                wait = self._due[0][0] - time.monotonic() if self._due else _WAIT_SECONDS
                if wait <= 0:
                    return self._jobs[heapq.heappop(self._due)[1]]
                self._changed.wait(min(wait, _WAIT_SECONDS))
        return None

    def _put(self, job: _Job, pixels: Any) -> None:
        """Hand over to the encoder; waiting for room is what slows the fetchers down to its pace."""
        while not self._closed:
            try:
                self._pixels.put((job, pixels), timeout=_WAIT_SECONDS)
                return
            except Full:
                continue

    def _refused(self, job: _Job, error: NoPicture) -> None:
        job.attempts += 1
        if error.passing and job.attempts < self._settings.attempts:
            PICTURES_TOTAL.labels(outcome="tried again").inc()
            pause = self._settings.pause_seconds * _GROWTH ** (job.attempts - 1)
            with self._changed:
                heapq.heappush(self._due, (time.monotonic() + pause, job.mark))
            return
        PICTURES_TOTAL.labels(outcome=error.reason).inc()
        log.warning("picture_refused url=%s attempts=%d reason=%s", job.url[:200], job.attempts, error)
        self._done(job, error.reason)

    def _encode(self) -> None:
        while not self._closed:
            batch: list[tuple[_Job, Any]] = []
            try:
                batch.append(self._pixels.get(timeout=_WAIT_SECONDS))
                while len(batch) < self._settings.batch:
                    batch.append(self._pixels.get_nowait())
            except Empty:
                pass
            if not batch:
                continue
            try:
                vectors = self._encoder.encode([pixels for _, pixels in batch])
            except Exception:
                log.exception("pictures_not_encoded pictures=%d", len(batch))
                PICTURES_TOTAL.labels(outcome="left for reconcile").inc(len(batch))
                with self._changed:
                    for job, _ in batch:
                        del self._jobs[job.mark]
                continue
            PICTURES_TOTAL.labels(outcome="encoded").inc(len(batch))
            for (job, _), vector in zip(batch, vectors, strict=True):
                self._done(job, vector)

    def _done(self, job: _Job, found: DenseVector | str) -> None:
        with self._changed:
            self._found[job.mark] = found
            while len(self._found) > self._settings.waiting:
                del self._found[next(iter(self._found))]
            del self._jobs[job.mark]
            items = sorted(job.items)
        for product_id in items:
            try:
                self._announce(product_id)
            except Transient as error:
                log.warning("picture_not_announced product_id=%s reason=%s", product_id, error)


class Marks:
    """What a picture's vector is made from, as one word: the model, then the URL."""

    def __init__(self, model: str) -> None:
        self.model = digest(model)[:_MODEL_CHARS]

    def of(self, product: Product) -> str | None:
        """The mark of a product's picture; None where it names none."""
        url = (product.image_url or "").strip()
        return self.model + digest(url) if url else None

    def made(self, mark: str) -> bool:
        """Whether a mark on a point is of this model."""
        return mark.startswith(self.model)
