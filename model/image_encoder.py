"""Pictures become unit vectors, by the picture side of a CLIP-like model.

Reads   a model's folder (config.json, *.safetensors, preprocessor_config.json) once, in `load`
Writes  nothing, apart from the hub library's own cache
Never   runs a model's own code, or opens pickled weights

The model is any of transformers' that has `get_image_features` (CLIP, Chinese-CLIP, SigLIP, ...), prepared by
the image processor that came with it, in its PIL form: torchvision is not needed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.settings import ModelSettings, UnusableModel, base_folder


class ImageEncoder:
    """Implements `schemas.vectors.PictureEncoder`. Thread-safe, one batch at a time. Make one with `load`."""

    def __init__(self, model: Any, processor: Any, *, dimension: int, device: Any) -> None:
        self._model = model
        self._processor = processor
        self._device = device
        self._lock = threading.Lock()
        self.dimension = dimension

    @classmethod
    def load(cls, folder: Path, settings: ModelSettings) -> ImageEncoder:
        """The model in `folder`, in fp32 on the device of `settings`. Raises UnusableModel."""
        from transformers import AutoImageProcessor

        from model.precision import chosen_device
        from model.weights import load_model

        size = dimension_of(folder)
        device = chosen_device(settings.device)
        model: Any = load_model(folder, device)
        if not hasattr(model, "get_image_features"):
            raise UnusableModel(f"the model in {folder} has no picture side: expected one as CLIP has it")
        processors: Any = AutoImageProcessor  # its methods carry no types
        try:
            processor = processors.from_pretrained(
                str(folder), backend="pil", local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError) as error:
            raise UnusableModel(f"the image processor in {folder} cannot be used: {error}") from error
        encoder = cls(model, processor, dimension=size, device=device)
        found = encoder.encode([np.full((8, 8, 3), 127, dtype=np.uint8)])
        if len(found[0]) != size:
            raise UnusableModel(
                f"the model in {folder} makes {len(found[0])} numbers, its config says {size}"
            )
        return encoder

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[list[float]]:
        """Unit float vectors, shape (len(pictures), dimension), in order; pictures are (h, w, 3), RGB."""
        import torch

        if not pictures:
            return []
        with self._lock, torch.inference_mode():
            ready = self._processor(list(pictures), return_tensors="pt", input_data_format="channels_last")
            found = self._model.get_image_features(pixel_values=ready["pixel_values"].to(self._device))
            # Older versions answer with the tensor itself.
            features = getattr(found, "pooler_output", found).float()
            unit = torch.nn.functional.normalize(features, dim=1)
            if not bool(unit.isfinite().all()):
                raise UnusableModel("the image model made a vector that is not finite")
            vectors: list[list[float]] = unit.cpu().tolist()
        return vectors


def load_image_encoder(name: str, settings: ModelSettings) -> ImageEncoder:
    """The image model by its hub name or folder. Raises UnusableModel."""
    return ImageEncoder.load(image_folder(name, settings), settings)


def image_folder(name: str, settings: ModelSettings) -> Path:
    """A local folder with its files. Raises UnusableModel."""
    try:
        return base_folder(settings.model_copy(update={"name": name, "revision": None}))
    except UnusableModel as error:
        raise UnusableModel(str(error).replace("SIMSTREAM_MODEL__NAME", "SIMSTREAM_IMAGES__MODEL")) from error


def dimension_of(folder: Path) -> int:
    """Length of its vectors, by config.json alone: imports no torch. Raises UnusableModel."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise UnusableModel(f"{folder}/config.json cannot be read: {error}") from error
    # CLIP projects to a size of its own, SigLIP leaves that of its picture side.
    found = config.get("projection_dim") or (config.get("vision_config") or {}).get("hidden_size")
    if not isinstance(found, int):
        raise UnusableModel(f"{folder}/config.json names neither projection_dim nor a picture side")
    return found
