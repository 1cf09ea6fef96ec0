"""A neighbourhood on a plane: items that mean the same lie near each other. Pure.

Places are the two principal components of the items' content vectors (Pearson 1901), which for vectors of one
length is classical scaling of their distances (Torgerson 1952). How much of the spread two axes show is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def placed(vectors: Mapping[str, Sequence[float]]) -> tuple[dict[str, tuple[float, float]], float]:
    """Coordinates in -1..1 by item, and the share of the variance that they show (0..1).

    The same vectors give the same map: the sign of an axis is that of its largest component.
    """
    names = sorted(vectors)
    if len(names) < 2:
        return dict.fromkeys(names, (0.0, 0.0)), 1.0
    matrix = np.array([vectors[name] for name in names], dtype=np.float64)
    matrix -= matrix.mean(axis=0)
    left, sizes, axes = np.linalg.svd(matrix, full_matrices=False)
    plane = np.zeros((len(names), 2))
    for axis in range(min(2, len(sizes))):
        sign = 1.0 if axes[axis][np.argmax(np.abs(axes[axis]))] >= 0 else -1.0
        plane[:, axis] = sign * left[:, axis] * sizes[axis]
    spread, total = float((sizes[:2] ** 2).sum()), float((sizes**2).sum())
    widest = float(np.abs(plane).max())
    if widest > 0:
        plane /= widest
    return (
        {name: (round(float(x), 4), round(float(y), 4)) for name, (x, y) in zip(names, plane, strict=True)},
        round(spread / total, 4) if total > 0 else 1.0,
    )
