"""A model whose every vector is another model's under one fixed rotation.

The rotation is a permutation of the hidden coordinates, carried through every weight: layer norms and
residual sums commute with it, and attention never sees it. So cosines within the release are those of the
other one, and a score that mixes the two is wrong, which is what a proof of a swap needs to see.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

#: Where the hidden size stands in each weight, by the end of its name: 0 its rows, 1 its columns.
_AXES = {
    "word_embeddings.weight": 1,
    "position_embeddings.weight": 1,
    "token_type_embeddings.weight": 1,
    "LayerNorm.weight": 0,
    "LayerNorm.bias": 0,
    "self.query.weight": 1,
    "self.key.weight": 1,
    "self.value.weight": 1,
    "output.dense.weight": 0,
    "output.dense.bias": 0,
    "intermediate.dense.weight": 1,
}


def permutation(size: int, seed: int) -> torch.Tensor:
    """The rotation, as the coordinate that each new coordinate is taken from."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def write_rotated_model(source: Path, folder: Path, *, seed: int = 1) -> Path:
    """Write the BERT in `source` again with its hidden coordinates permuted; the new folder."""
    shutil.copytree(source, folder)
    weights = load_file(source / "model.safetensors")
    hidden = next(one for name, one in weights.items() if name.endswith("word_embeddings.weight")).shape[1]
    order = permutation(hidden, seed)
    rotated = {}
    for name, weight in weights.items():
        axis = next((axis for ending, axis in _AXES.items() if name.endswith(ending)), None)
        rotated[name] = weight if axis is None else weight.index_select(axis, order).contiguous()
    save_file(rotated, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
