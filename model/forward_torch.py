"""The forward pass in torch, on a GPU or a processor.

Reads   a model's folder, once
Writes  nothing
Never   copies one text at a time: a batch goes to a GPU through pinned memory, its vectors come back at once
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.forward import Forward, Vectors, kept
from model.precision import chosen_device, chosen_precision, without_plans
from model.settings import ModelSettings
from model.weights import load_model
from schemas.releases import EncoderConfig, Pooling

#: Measured on one core without bf16: such a batch takes about 150 ms and stays in the core's own cache; twice
#: as much is a tenth slower per text.
BATCH_TOKENS_CPU = 512
BATCH_TOKENS_GPU = 32_768
#: Of the processor's cores; with more, each batch gets several.
_BATCHES_SIDE_BY_SIDE = 4


class TorchForward:
    """Implements model.forward.Forward."""

    engine = "torch"

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        device: torch.device,
        pooling: Pooling,
        threads: int | None,
        dimension: int | None = None,
    ) -> None:
        self._model = model
        self._device = device
        self._pooling = pooling
        shape: Any = model.config
        self.pad_id = int(getattr(shape, "pad_token_id", None) or 0)
        self.dimension = kept(dimension, int(shape.hidden_size))
        self.on_processor = device.type == "cpu"
        self.batch_tokens = BATCH_TOKENS_CPU if self.on_processor else BATCH_TOKENS_GPU
        cores = threads or torch.get_num_threads()
        self.side_by_side = min(cores, _BATCHES_SIDE_BY_SIDE) if self.on_processor else 1
        # A GPU works on one batch while the next is copied and the one before is awaited.
        self.ahead = self.side_by_side if self.on_processor else 2
        self._threads = max(1, cores // self.side_by_side)
        self.dtype = "fp32"
        self.cosine: float | None = None

    @property
    def device(self) -> str:
        """Where it computes, as torch names it."""
        return str(self._device)

    def use_thread(self) -> None:
        """Set up the calling thread: torch keeps a pool of helpers per calling thread."""
        torch.set_num_threads(self._threads)

    def start(self, batch: Sequence[Sequence[int]], *, skip: int) -> Callable[[], Vectors]:
        """See Forward."""
        with torch.inference_mode():
            ids, lengths = self._on_device(batch)
            hidden = self.hidden(ids, lengths, padded=len(batch[0]) != len(batch[-1]))
            pooled = pool(hidden, lengths, self._pooling, skip=skip, dimension=self.dimension)
            if self._device.type != "cuda":
                vectors: Vectors = pooled.cpu().numpy()
                return lambda: vectors
            # One copy back per batch, into pinned memory, awaited by the caller and not by this thread.
            target = torch.empty(pooled.shape, dtype=pooled.dtype, pin_memory=True)
            target.copy_(pooled, non_blocking=True)
            copied: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()

        def wait() -> Vectors:
            copied.synchronize()
            found: Vectors = target.numpy()
            return found

        return wait

    def _on_device(self, batch: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids, int64, (texts, longest) and lengths, int64, (texts,); texts come longest first."""
        lengths = np.array([len(ids) for ids in batch], dtype=np.int64)
        padded = np.full((len(batch), max(1, int(lengths[0]))), self.pad_id, dtype=np.int64)
        for row, ids in enumerate(batch):
            padded[row, : len(ids)] = ids
        tensors = torch.from_numpy(padded), torch.from_numpy(lengths)
        if self._device.type == "cpu":
            return tensors
        if self._device.type == "cuda":
            tensors = tensors[0].pin_memory(), tensors[1].pin_memory()
        return tensors[0].to(self._device, non_blocking=True), tensors[1].to(self._device, non_blocking=True)

    def hidden(self, ids: torch.Tensor, lengths: torch.Tensor, *, padded: bool) -> torch.Tensor:
        """Hidden states of the last layer, (texts, longest, dimension). No mask where nothing is padded."""
        mask = None
        if padded:
            mask = (torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)).long()
        found: torch.Tensor = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        return found


def load_torch(
    folder: Path,
    config: EncoderConfig,
    settings: ModelSettings,
    vectors_of: Callable[[Forward, Sequence[str]], Vectors],
) -> TorchForward:
    """The model in `folder` on the device and in the precision that suit this machine.

    Raises UnusableModel if files are missing, or the weights are not finite or not all there.
    """
    device = chosen_device(settings.device)
    without_plans(device)

    def forward_of(model: torch.nn.Module) -> TorchForward:
        return TorchForward(
            model,
            device=device,
            pooling=config.pooling,
            threads=settings.threads,
            dimension=config.dimension,
        )

    def probed(model: torch.nn.Module, texts: Sequence[str]) -> NDArray[np.float32]:
        return vectors_of(forward_of(model), texts)

    model, dtype, cosine = chosen_precision(
        load_model(folder, device),
        device,
        settings.dtype,
        probed,
        pack=not settings.compile,  # the compiler packs by itself, and does not know packed weights
    )
    if settings.compile:
        model.compile(dynamic=True)
    forward = forward_of(model)
    forward.dtype, forward.cosine = dtype, cosine
    return forward


def pool(
    hidden: torch.Tensor,
    lengths: torch.Tensor,
    pooling: Pooling,
    *,
    skip: int = 0,
    dimension: int | None = None,
) -> torch.Tensor:
    """One unit vector per text, fp32, (texts, dimension), from hidden states (texts, longest, hidden size).

    `skip` tokens at the front (a prompt) are left out of a mean. Texts are padded on the right. The first
    `dimension` numbers are kept, all of them where it is None.
    """
    if pooling == "cls":
        pooled = hidden[:, 0].float()
    elif pooling == "last":
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        pooled = hidden[rows, (lengths - 1).clamp(min=0)].float()
    else:
        position = torch.arange(hidden.shape[1], device=hidden.device)
        counted = ((position < lengths.unsqueeze(1)) & (position >= skip)).float()
        # A product of matrices in fp32: the sum of each text's tokens, no masked copy of the states.
        summed = torch.bmm(counted.unsqueeze(1), hidden.float()).squeeze(1)
        pooled = summed / counted.sum(1, keepdim=True).clamp(min=1.0)
    return torch.nn.functional.normalize(pooled[:, :dimension], dim=1)
