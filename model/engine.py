"""What computes here: torch, or ONNX Runtime on a processor that has no fast half precision.

Reads   settings, the kind of this machine, a model's folder
Writes  what model/graph.py writes
Never   imports torch where a translated graph is there already: that import is most of an encoder's start

On two cores without bf16 ONNX Runtime answers a query in half the time of torch, whose matrix product is slow
for few rows (docs/decisions.md).
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from model.forward import Forward, Vectors
from model.settings import ModelSettings, UnusableModel
from schemas.releases import EncoderConfig

log = logging.getLogger(__name__)

VectorsOf = Callable[[Forward, Sequence[str]], Vectors]

#: A smaller model runs for less time in its life than its translation takes.
_LEAST_BYTES = 16_000_000
_PACKAGES = ("onnxruntime", "onnx", "onnxscript")
#: Flags of /proc/cpuinfo: with one of them bf16 is computed natively, and torch has it.
_FAST_HALF = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def load_forward(
    folder: Path, config: EncoderConfig, settings: ModelSettings, vectors_of: VectorsOf
) -> Forward:
    """The model in `folder` in the engine that suits this machine, or the one that the settings name.

    Raises UnusableModel if files are missing, weights are not finite or not all there, or it cannot run in
    the engine that is asked for by name.
    """
    by_name = settings.engine == "onnx" or settings.dtype == "int8"
    reason = _unfit(settings) if by_name else _unsuitable(settings, folder)
    if reason is None:
        from model.forward_onnx import load_onnx
        from model.graph import Untranslatable

        try:
            return load_onnx(folder, config, settings, vectors_of)
        except Untranslatable as error:
            if by_name:
                raise UnusableModel(
                    f"the model in {folder} does not run in ONNX Runtime: {error}; "
                    "set SIMSTREAM_MODEL__ENGINE=torch and a dtype that torch has"
                ) from error
            log.warning("model_not_translated folder=%s reason=%s", folder, error)
    elif by_name:
        raise UnusableModel(reason)
    from model.forward_torch import load_torch

    return load_torch(folder, config, settings, vectors_of)


def _unfit(settings: ModelSettings) -> str | None:
    """Why ONNX Runtime cannot do what is asked for by name, or None."""
    if settings.engine == "torch":
        return "SIMSTREAM_MODEL__DTYPE=int8 runs in ONNX Runtime: set SIMSTREAM_MODEL__ENGINE=onnx or auto"
    if settings.device not in ("auto", "cpu"):
        return f"SIMSTREAM_MODEL__ENGINE=onnx runs on the processor, not on {settings.device!r}"
    if settings.dtype not in ("auto", "fp32", "int8"):
        return f"SIMSTREAM_MODEL__ENGINE=onnx has fp32 and int8, not {settings.dtype}"
    lacking = _lacking()
    if lacking:
        return f"SIMSTREAM_MODEL__ENGINE=onnx needs {', '.join(lacking)}: pip install {' '.join(lacking)}"
    return None


def _unsuitable(settings: ModelSettings, folder: Path) -> str | None:
    """Why torch suits better here, or None."""
    if settings.engine == "torch" or settings.compile or settings.dtype not in ("auto", "fp32"):
        return "the settings ask for torch"
    if settings.device not in ("auto", "cpu") or not sys.platform.startswith("linux"):
        return "another device"
    if settings.device == "auto" and any(Path("/dev").glob("nvidia[0-9]*")):
        return "a GPU"
    if settings.dtype == "auto" and _FAST_HALF & _processor_flags():
        return "a processor with bf16"
    if sum(path.stat().st_size for path in folder.glob("*.safetensors")) < _LEAST_BYTES:
        return "a small model"
    return "not installed" if _lacking() else None


def _lacking() -> list[str]:
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is None]


def _processor_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return frozenset(flags.partition(":")[2].split())
