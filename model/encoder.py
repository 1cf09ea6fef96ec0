"""Texts become unit vectors, in three phases: tokenise, forward, pool.

Reads   a model's folder (config.json, *.safetensors, tokenizer.json) once, in `load`
Writes  metrics: texts, tokens, seconds, truncated texts
Never   runs a model's own code, guesses a release, or lets a short query wait behind a long bulk encode

The caller's thread tokenises and cuts the texts, sorted by length, into batches of so many tokens, padding
included. Threads of the encoder's own run the forward passes, in the order the batches were handed to them.
On a processor each batch has a core or a few to itself: two batches side by side beat one that is split over
two cores, most of all where one of the cores has other work and the other half would wait for it at every
layer. An encode has at most `ahead` batches there, so a query waits for those and no more. Pooling sums in
fp32.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from model.effort import Counts, Effort, count_effort
from model.engine import load_forward
from model.forward import Forward, Vectors
from model.settings import ModelSettings, UnusableModel
from schemas.releases import EncoderConfig

log = logging.getLogger(__name__)

#: Texts tokenised and sorted together: bounds memory, and is far more than a batch.
_CHUNK_TEXTS = 4096
#: Of the background's thread: about a tenth of a busy processor, all of an idle one.
BACKGROUND_NICE = 10


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenised text: ids of at most `max_length` tokens, and whether more were cut off."""

    ids: list[int]
    truncated: bool


class TextEncoder:
    """Implements `schemas.vectors.Encoder`. Thread-safe. Make one with `load`, end it with `close`."""

    def __init__(
        self,
        forward: Forward,
        *,
        tokenizer: Tokenizer,
        config: EncoderConfig,
        batch_tokens: int | None = None,
        counts: Counts = count_effort,
    ) -> None:
        self.config = config
        self.batch_tokens = batch_tokens or forward.batch_tokens
        self._count = counts
        self._forward = forward
        self._tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.enable_truncation(config.max_length)
        self._prompt_tokens = {
            query: 0 if config.include_prompt else self._tokens_of_prompt(query) for query in (False, True)
        }
        self._busy_until = 0.0
        self._busy_lock = threading.Lock()

        def lane(name: str, nice: int) -> ThreadPoolExecutor:
            # An engine may keep a pool of helpers per calling thread: so these call, whoever asks.
            return ThreadPoolExecutor(
                max_workers=forward.side_by_side,
                thread_name_prefix=name,
                initializer=_use_thread,
                initargs=(forward, nice),
            )

        self._lane = lane("encoder", 0)
        # Its threads start with its first text. A GPU has one queue of work, so there both are the same.
        self._background = lane("encoder-background", BACKGROUND_NICE) if forward.on_processor else self._lane

    @classmethod
    def load(
        cls,
        folder: Path,
        config: EncoderConfig,
        settings: ModelSettings,
        *,
        counts: Counts = count_effort,
    ) -> TextEncoder:
        """Load the model in `folder`, choosing engine, device and precision for this machine; log the choice.

        `counts` hears of all that is encoded afterwards.

        Raises UnusableModel if files are missing, or the weights are not finite or not all there.
        """
        started = time.monotonic()
        tokenizer = _tokenizer(folder)

        def vectors_of(forward: Forward, texts: Sequence[str]) -> Vectors:
            probe = cls(forward, tokenizer=tokenizer, config=config, counts=_uncounted)
            try:
                return probe.vectors(probe.tokenise(texts))
            finally:
                probe.close()

        forward = load_forward(folder, config, settings, vectors_of)
        encoder = cls(
            forward, tokenizer=tokenizer, config=config, batch_tokens=settings.batch_tokens, counts=counts
        )
        log.info(
            "encoder_ready engine=%s device=%s dtype=%s cosine_to_fp32=%s dimension=%d pooling=%s "
            "max_length=%d batch_tokens=%d compiled=%s seconds=%.1f folder=%s",
            forward.engine,
            forward.device,
            forward.dtype,
            None if forward.cosine is None else round(forward.cosine, 5),
            encoder.dimension,
            config.pooling,
            config.max_length,
            encoder.batch_tokens,
            settings.compile,
            time.monotonic() - started,
            folder,
        )
        return encoder

    @property
    def engine(self) -> str:
        """What computes: "torch" or "onnx"."""
        return self._forward.engine

    @property
    def device(self) -> str:
        """Where it computes: "cpu", "cuda:0"."""
        return self._forward.device

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self._forward.dimension

    def encode(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> list[list[float]]:
        """`encode_array` as plain lists of floats."""
        vectors: list[list[float]] = self.encode_array(texts, query=query, background=background).tolist()
        return vectors

    def encode_array(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> NDArray[np.float32]:
        """Unit vectors, float32, shape (len(texts), dimension), in the order of `texts`.

        `query` puts the model's query prompt in front, otherwise the passage prompt. `background` runs them
        on a thread of lower priority (on Linux, on the processor): other texts and other work come first.
        """
        vectors = np.empty((len(texts), self._forward.dimension), dtype=np.float32)
        for start in range(0, len(texts), _CHUNK_TEXTS):
            tokens = self.tokenise(texts[start : start + _CHUNK_TEXTS], query=query)
            vectors[start : start + len(tokens)] = self.vectors(tokens, query=query, background=background)
            self._count(
                Effort(
                    texts=len(tokens),
                    tokens=sum(len(text.ids) for text in tokens),
                    truncated=sum(text.truncated for text in tokens),
                )
            )
        return vectors

    def close(self) -> None:
        """Finish what is being encoded and end the encoder's threads."""
        self._lane.shutdown()
        self._background.shutdown()

    # --- phase 1: tokenise, in the caller's thread (the tokeniser releases the GIL and uses all cores) ---

    def tokenise(self, texts: Sequence[str], *, query: bool = False) -> list[Tokens]:
        """Ids of each text with its prompt, cut to `max_length`."""
        prompt = self.config.query_prompt if query else self.config.passage_prompt
        prepared: Sequence[str] = [prompt + text for text in texts] if prompt else list(texts)
        if self.config.lower_case:
            prepared = [text.lower() for text in prepared]
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(prepared)
        return [Tokens(ids=found.ids, truncated=bool(found.overflowing)) for found in encodings]

    def _tokens_of_prompt(self, query: bool) -> int:
        """How many tokens the prompt takes at the front, the opening special token included."""
        prompt = self.config.query_prompt if query else self.config.passage_prompt
        if not prompt:
            return 0
        ids = self._tokenizer.encode(prompt).ids
        bare = self._tokenizer.encode(prompt, add_special_tokens=False).ids
        closing = (
            len(ids) - len(bare) - next((at for at in range(len(ids)) if ids[at:][: len(bare)] == bare), 0)
        )
        return len(ids) - closing

    def vectors(
        self, tokens: Sequence[Tokens], *, query: bool = False, background: bool = False
    ) -> NDArray[np.float32]:
        """Unit vectors of tokenised texts, float32, (len(tokens), dimension), in their order."""
        vectors = np.empty((len(tokens), self._forward.dimension), dtype=np.float32)
        waiting: deque[tuple[list[int], Future[Callable[[], NDArray[np.float32]]]]] = deque()
        skip = self._prompt_tokens[query]
        lane = self._background if background else self._lane
        lengths = [len(text.ids) for text in tokens]
        # Few texts are shared out too; the longest one's length is what rounding may cost a batch.
        share = sum(lengths) // self._forward.side_by_side + max(lengths, default=0)
        for batch in token_batches(lengths, min(self.batch_tokens, share)):
            # Nobody waits behind the background's batches: one more keeps its threads busy.
            if len(waiting) == self._forward.ahead + background:
                rows, done = waiting.popleft()
                vectors[rows] = done.result()()
            waiting.append((batch, lane.submit(self._run, [tokens[row].ids for row in batch], skip)))
        for rows, done in waiting:
            vectors[rows] = done.result()()
        return vectors

    # --- phases 2 and 3: forward and pool, in the encoder's thread ---

    def _run(self, batch: Sequence[Sequence[int]], skip: int) -> Callable[[], Vectors]:
        """Start one batch; the answer waits for it and hands out its vectors, (len(batch), dimension)."""
        started = time.perf_counter()
        waiting = self._forward.start(batch, skip=skip)
        if self._forward.on_processor:
            self._count_busy(started)
            return waiting

        def wait() -> Vectors:
            found = waiting()
            self._count_busy(started)
            return found

        return wait

    def _count_busy(self, started: float) -> None:
        """Add the time since `started` that no earlier batch has been counted for."""
        now = time.perf_counter()
        with self._busy_lock:
            seconds = now - max(started, self._busy_until)
            self._busy_until = max(now, self._busy_until)
        if seconds > 0:
            self._count(Effort(seconds=seconds))


def token_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Positions of `lengths`, longest first, in batches of texts x longest <= batch_tokens.

    A text that is longer than that alone is a batch of its own.
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def _uncounted(_: Effort) -> None:
    """Probes at loading are no work done."""


def _tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UnusableModel(f"{path} is missing; a release made by simstream has one")
    return Tokenizer.from_file(str(path))


def _use_thread(forward: Forward, nice: int) -> None:
    """Set up an encoder's thread; helpers that it starts inherit its priority."""
    if nice and sys.platform == "linux":
        # Never above the process's own: a backfill is nicer than this, and may not raise itself.
        own = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(nice, own))
    forward.use_thread()
