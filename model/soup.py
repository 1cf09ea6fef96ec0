"""Several runs of one recipe become one: the mean of their weights.

Reads   folders of weights
Writes  a folder of weights
Never   averages weights of different shapes

Model soups (Wortsman et al. 2022): runs that start from the same weights and differ in their seeds end near
enough to each other that their mean is a model, and often a better one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch


def mean_of_weights(folders: Sequence[Path], into: Path) -> Path:
    """The mean of the folders' *.safetensors, tensor by tensor, under the names of the first one's files."""
    from safetensors.torch import load_file, save_file

    into.mkdir(parents=True, exist_ok=True)
    for path in sorted(folders[0].glob("*.safetensors")):
        total = load_file(path)
        for other in folders[1:]:
            for name, tensor in load_file(other / path.name).items():
                if total[name].is_floating_point():
                    total[name] = total[name] + tensor
        mean = {
            name: (tensor / len(folders)).to(tensor.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in total.items()
        }
        save_file({name: torch.clone(tensor) for name, tensor in mean.items()}, into / path.name)
    for path in folders[0].iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            (into / path.name).write_bytes(path.read_bytes())
    return into
