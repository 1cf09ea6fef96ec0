"""A model's architecture as an ONNX graph without weights, made once by torch's exporter and kept.

Reads   a model's folder
Writes  `{graphs}/{key}.onnx` and `.json` (which tensor of the weights' file each parameter is); a failure too
Never   keeps a graph whose vectors differ from torch's on probe texts

The key names the configuration and the versions of torch and transformers, so releases trained from one base
share a graph, and their weights are handed to the runtime as they lie in the file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from model.settings import UnusableModel

log = logging.getLogger(__name__)

#: Raised with every change of what is written here.
_FORMAT = 1
#: Between a probe's vector in torch and from the graph; both compute in fp32.
LEAST_COSINE = 0.9999
#: Of config.json, what says nothing of the architecture.
_IDLE_KEYS = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype"})
Weights = Mapping[str, NDArray[np.float32]]


class Untranslatable(Exception):
    """A model that the exporter, or this file, cannot turn into a graph; the message says why."""


@dataclass(frozen=True, slots=True)
class Graph:
    """`tensors` has, for each parameter of the graph, the name of its tensor in the weights' file."""

    model: bytes
    tensors: Mapping[str, str]


def read_weights(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Every tensor in the folder's *.safetensors, float32.

    Raises UnusableModel for a file that is none or a value that is not finite, Untranslatable for a precision
    that is not fp32.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(path), framework="numpy") as file:
                for name in file.keys():
                    kind = file.get_slice(name).get_dtype()
                    if kind not in ("F32", "I64"):
                        raise Untranslatable(f"tensor {name!r} is {kind}, not F32")
                    tensor = file.get_tensor(name)
                    if tensor.dtype == np.float32:
                        found[name] = tensor
        except (OSError, SafetensorError) as error:
            raise UnusableModel(f"the model in {folder} cannot be loaded: {error}") from error
    if not found or not (folder / "config.json").is_file():
        raise UnusableModel(f"{folder} lacks config.json or *.safetensors; pickled weights are not opened")
    for name, tensor in found.items():
        if tensor.size and not bool(np.isfinite(tensor.min()) and np.isfinite(tensor.max())):
            raise UnusableModel(
                f"weight {name!r} of the model in {folder} is not finite; it would poison vectors"
            )
    return found


def graph_of(folder: Path, weights: Weights, graphs: Path, agrees: Callable[[Graph, Any], float]) -> Graph:
    """The graph of the model in `folder`, made if it is not there yet: some ten seconds of one core.

    `agrees` runs probe texts through a graph and a torch model and answers their least cosine.

    Raises Untranslatable, again at once when it is asked again.
    """
    key = _key(folder)
    body, names, failed = (graphs / f"{key}{suffix}" for suffix in (".onnx", ".json", ".failed"))
    try:
        return Graph(body.read_bytes(), json.loads(names.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass
    if failed.is_file():
        raise Untranslatable(failed.read_text(encoding="utf-8"))
    started = time.monotonic()
    try:
        graph, model = _translated(folder, weights)
        cosine = agrees(graph, model)
        if not cosine >= LEAST_COSINE:
            raise Untranslatable(f"its graph's vectors differ from torch's (least cosine {cosine:.6f})")
    except Untranslatable as error:
        with suppress(OSError):
            _write(failed, str(error).encode())
        raise
    try:
        _write(body, graph.model)
        # Last: a graph without its names is not there.
        _write(names, json.dumps(dict(graph.tensors), indent=0).encode())
    except OSError as error:
        log.warning(
            "graph_not_kept reason=%s: every start translates again; set SIMSTREAM_MODEL__GRAPHS to a folder "
            "that can be written",
            error,
        )
    log.info(
        "model_translated key=%s cosine=%.6f bytes=%d seconds=%.1f",
        key,
        cosine,
        len(graph.model),
        time.monotonic() - started,
    )
    return graph


def with_weights(graph: Graph, weights: Weights, folder: Path) -> dict[str, NDArray[np.float32]]:
    """The tensor of each parameter. Raises UnusableModel naming one that the weights lack."""
    for parameter, name in graph.tensors.items():
        if name not in weights:
            raise UnusableModel(
                f"the weights in {folder} lack {parameter!r}, which its config.json calls for"
            )
    return {parameter: weights[name] for parameter, name in graph.tensors.items()}


def weights_digest(folder: Path) -> str:
    """Names the contents of the weights' files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _key(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = {
        "format": _FORMAT,
        "config": {name: value for name, value in config.items() if name not in _IDLE_KEYS},
        "torch": version("torch"),
        "transformers": version("transformers"),
        "onnxscript": version("onnxscript"),
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]


def _translated(folder: Path, weights: Weights) -> tuple[Graph, Any]:
    """The graph, and the torch model that it was made of."""
    import onnx
    import torch

    from model.weights import load_model

    class Hidden(torch.nn.Module):
        """Ids and mask to hidden states."""

        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.inner(input_ids=ids, attention_mask=mask).last_hidden_state
            return found

    model = load_model(folder, torch.device("cpu"))
    ids = torch.ones((2, 16), dtype=torch.int64)
    shape = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _quiet():
        try:
            program = torch.onnx.export(
                Hidden(model).eval(),
                (ids, torch.ones_like(ids)),
                dynamo=True,
                # Weights keep their names and their layout; the runtime folds what can be folded.
                optimize=False,
                verbose=False,
                dynamic_shapes={"ids": shape, "mask": shape},
                input_names=["ids", "mask"],
                output_names=["hidden"],
            )
        except Exception as error:  # it raises whatever its parts do
            raise Untranslatable(f"torch's exporter: {type(error).__name__}: {str(error)[:300]}") from error
    if program is None:
        raise Untranslatable("torch's exporter gave nothing back")
    proto = program.model_proto
    parameters = {f"inner.{name}": (name, value) for name, value in model.named_parameters()}
    tensors: dict[str, str] = {}
    for one in proto.graph.initializer:
        if one.name not in parameters:
            continue  # a constant of the architecture, kept in the graph
        parameter, value = parameters[one.name]
        name = _tensor_name(parameter, weights, value.detach().numpy())
        tensors[one.name] = name
        one.ClearField("raw_data")
        one.data_location = onnx.TensorProto.EXTERNAL
        for field, content in (
            ("location", "weights"),
            ("offset", "0"),
            ("length", str(weights[name].nbytes)),
        ):
            one.external_data.add(key=field, value=content)
    return Graph(proto.SerializeToString(), tensors), model


def _tensor_name(parameter: str, weights: Weights, value: NDArray[np.float32]) -> str:
    """The tensor of the file that the library made this parameter of, unchanged."""
    candidates = [parameter, *(name for name in weights if name.endswith(f".{parameter}"))]
    for name in candidates:
        if name in weights and np.array_equal(weights[name], value):
            return name
    raise Untranslatable(f"parameter {parameter!r} is no tensor of the weights' file as it stands")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, which are about its own parts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _write(path: Path, body: bytes) -> None:
    """Whole or not at all; processes that race write the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    aside.write_bytes(body)
    aside.replace(path)


def least_cosine(one: Sequence[Sequence[float]] | NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Of unit vectors row by row."""
    return float((np.asarray(one) * other).sum(axis=1).min())
