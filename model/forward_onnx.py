"""The forward pass in ONNX Runtime, on a processor.

Reads   a model's weights, its graph (model/graph.py)
Writes  `{graphs}/int8-{weights}.onnx` for the precision of that name
Never   imports torch, but to translate an architecture that it has not met before

Each batch runs on the thread that asks for it, one core a batch, so a thread of lower priority gives way.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.engine import VectorsOf
from model.forward import Vectors, kept
from model.graph import Graph, graph_of, least_cosine, read_weights, weights_digest, with_weights
from model.probes import PROBE_TEXTS
from model.settings import ModelSettings, UnusableModel
from schemas.releases import EncoderConfig, Pooling

#: As many batches at a time as cores, up to this.
_MOST_SIDE_BY_SIDE = 32
#: Quantised models kept beside their graph: those of the releases in use, and a few before them.
_KEPT = 4
INT8 = "int8"


class OnnxForward:
    """Implements model.forward.Forward."""

    engine = "onnx"
    device = "cpu"
    on_processor = True
    #: As in torch, a batch of about 150 ms that stays in a core's own cache.
    batch_tokens = 512

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        *,
        shape: Mapping[str, Any],
        pooling: Pooling,
        dtype: str,
        threads: int | None,
        dimension: int | None = None,
    ) -> None:
        self._session = session
        self._pooling = pooling
        self.dtype = dtype
        self.cosine: float | None = None
        self.dimension = kept(dimension, int(shape["hidden_size"]))
        self.pad_id = int(shape.get("pad_token_id") or 0)
        self.side_by_side = self.ahead = min(threads or _cores(), _MOST_SIDE_BY_SIDE)

    def use_thread(self) -> None:
        """Nothing to set up."""

    def start(self, batch: Sequence[Sequence[int]], *, skip: int) -> Callable[[], Vectors]:
        """See Forward."""
        lengths = np.array([len(ids) for ids in batch], dtype=np.int64)
        longest = max(1, int(lengths[0]))
        ids = np.full((len(batch), longest), self.pad_id, dtype=np.int64)
        for row, found in enumerate(batch):
            ids[row, : len(found)] = found
        mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
        (hidden,) = self._session.run(None, {"ids": ids, "mask": mask})
        vectors = pool(hidden, lengths, self._pooling, skip=skip, dimension=self.dimension)
        return lambda: vectors


def pool(
    hidden: NDArray[np.float32],
    lengths: NDArray[np.int64],
    pooling: Pooling,
    *,
    skip: int,
    dimension: int | None = None,
) -> Vectors:
    """One unit vector per text, (texts, dimension), from hidden states (texts, longest, hidden size).

    `skip` tokens at the front (a prompt) are left out of a mean. Texts are padded on the right. The first
    `dimension` numbers are kept, all of them where it is None.
    """
    if pooling == "cls":
        pooled = hidden[:, 0]
    elif pooling == "last":
        pooled = hidden[np.arange(len(hidden)), np.maximum(lengths - 1, 0)]
    else:
        position = np.arange(hidden.shape[1])
        counted = ((position < lengths[:, None]) & (position >= skip)).astype(np.float32)
        summed = np.matmul(counted[:, None, :], hidden)[:, 0]
        pooled = summed / np.maximum(counted.sum(axis=1, keepdims=True), 1.0)
    pooled = pooled[:, :dimension]
    norms = np.linalg.norm(pooled, axis=1, keepdims=True)
    unit: Vectors = (pooled / np.maximum(norms, 1e-12)).astype(np.float32, copy=False)
    return unit


def load_onnx(
    folder: Path, config: EncoderConfig, settings: ModelSettings, vectors_of: VectorsOf
) -> OnnxForward:
    """The model in `folder`, fp32 or int8.

    Raises UnusableModel for weights that are missing or not finite, Untranslatable for an architecture that
    has no graph.
    """
    weights = read_weights(folder)
    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    graphs = Path(settings.graphs)

    def forward_of(session: onnxruntime.InferenceSession, dtype: str) -> OnnxForward:
        return OnnxForward(
            session,
            shape=shape,
            pooling=config.pooling,
            dtype=dtype,
            threads=settings.threads,
            dimension=config.dimension,
        )

    def plain(graph: Graph) -> OnnxForward:
        return forward_of(_session(graph.model, with_weights(graph, weights, folder)), "fp32")

    def agrees(graph: Graph, model: Any) -> float:
        import torch

        from model.forward_torch import TorchForward

        reference = TorchForward(
            model,
            device=torch.device("cpu"),
            pooling=config.pooling,
            threads=settings.threads,
            dimension=config.dimension,
        )
        return least_cosine(vectors_of(plain(graph), PROBE_TEXTS), vectors_of(reference, PROBE_TEXTS))

    graph = graph_of(folder, weights, graphs, agrees)
    if settings.dtype != INT8:
        return plain(graph)
    path = graphs / f"int8-{weights_digest(folder)}.onnx"
    try:
        if not path.is_file():
            _quantise(graph, with_weights(graph, weights, folder), path)
        body = path.read_bytes()
        os.utime(path)  # the oldest are removed
    except OSError as error:
        raise UnusableModel(
            f"SIMSTREAM_MODEL__DTYPE=int8 keeps quantised models in SIMSTREAM_MODEL__GRAPHS={graphs}, which "
            f"cannot be written: {error}"
        ) from error
    forward = forward_of(_session(body, {}), INT8)
    forward.cosine = least_cosine(vectors_of(forward, PROBE_TEXTS), vectors_of(plain(graph), PROBE_TEXTS))
    return forward


def _session(model: bytes, tensors: Mapping[str, NDArray[np.float32]]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Shapes differ from batch to batch: a plan of memory for each is kept for nothing.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    if tensors:
        options.add_external_initializers(
            list(tensors), [onnxruntime.OrtValue.ortvalue_from_numpy(tensor) for tensor in tensors.values()]
        )
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _quantise(graph: Graph, tensors: Mapping[str, NDArray[np.float32]], path: Path) -> None:
    """Weights of the matrix products as int8, each column with its own scale; activations as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.ModelProto.FromString(graph.model)
    for one in model.graph.initializer:
        if one.name in tensors:
            one.ClearField("external_data")
            one.data_location = onnx.TensorProto.DEFAULT
            one.raw_data = tensors[one.name].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".int8-") as scratch:
        whole, folded, done = (Path(scratch) / f"{name}.onnx" for name in ("whole", "folded", "done"))
        onnx.save_model(model, str(whole))
        with _without_advice():
            # Folds the transposed weights, so that each product has a constant to quantise.
            quant_pre_process(str(whole), str(folded), skip_symbolic_shape=True)
            quantize_dynamic(
                folded,
                done,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                # Seven bits: without the instructions for it, products of eight overflow on the way.
                reduce_range=True,
                weight_type=QuantType.QInt8,
            )
        done.replace(path)
    standing = sorted(path.parent.glob("int8-*.onnx"), key=lambda one: one.stat().st_mtime)
    for old in standing[:-_KEPT]:
        old.unlink(missing_ok=True)


@contextmanager
def _without_advice() -> Iterator[None]:
    """The quantiser tells the root logger of every product that it leaves alone."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _cores() -> int:
    """Cores that this process may use; OMP_NUM_THREADS says fewer, as it does to torch."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) else len(os.sched_getaffinity(0))
