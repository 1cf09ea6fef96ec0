"""Losses that the libraries do not have: in-batch contrast with masked false negatives, and simple heads.

Reads, writes  nothing
Never          counts an item as another's negative where shoppers saw both, or both are one thing

The contrastive loss is InfoNCE (van den Oord et al. 2018, eq. 4) in both directions. Scores of pairs that
`NegativeMask` names leave the denominator. `popularity` takes strength * ln(frequency) off a candidate's
score while training (Yi et al. 2019, sampling-bias-corrected neural modelling, section 3): a popular item is
in many batches, and would otherwise be pushed away from everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model.pairs import NegativeMask


class MaskedContrastiveLoss(nn.Module):
    """Anchor and positive, then any number of hard negatives; labels are the rows of the pair table."""

    def __init__(
        self,
        model: nn.Module,
        *,
        mask: NegativeMask | None,
        weights: NDArray[np.float32],
        scale: float = 20.0,
        symmetric: bool = True,
        popularity: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self._mask = mask
        self._weights = torch.from_numpy(weights)
        self.scale = scale
        self.symmetric = symmetric
        self.popularity = popularity

    def forward(self, sentence_features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor) -> Any:
        """The weighted mean over the batch, a scalar."""
        vectors = [self.model(features)["sentence_embedding"] for features in sentence_features]
        return self.of_vectors(vectors, labels)

    def of_vectors(self, vectors: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """From vectors of any length: anchors, positives and negatives, each (batch, dimension)."""
        unit = [nn.functional.normalize(one.float(), dim=-1) for one in vectors]
        anchors, positives, candidates = unit[0], unit[1], torch.cat(unit[1:])
        rows = labels.cpu().numpy()
        own = torch.arange(len(anchors), device=anchors.device)
        scores = self.scale * anchors @ candidates.T
        back = self.scale * positives @ anchors.T
        if self._mask is not None:
            hidden, hidden_back = self._mask.of_batch(rows, columns=len(vectors) - 1)
            scores = scores.masked_fill(torch.from_numpy(hidden).to(scores.device), -torch.inf)
            back = back.masked_fill(torch.from_numpy(hidden_back).to(back.device), -torch.inf)
            if self.popularity:
                often = torch.from_numpy(self._mask.log_frequency(rows, columns=len(vectors) - 1))
                scores = scores - self.popularity * often.to(scores.device)
        weights = self._weights.to(anchors.device)[labels.long()]
        loss = nn.functional.cross_entropy(scores, own, reduction="none")
        if self.symmetric:
            loss = (loss + nn.functional.cross_entropy(back, own, reduction="none")) / 2
        return (weights * loss).sum() / weights.sum()


def cached(loss: MaskedContrastiveLoss, mini_batch: int) -> nn.Module:
    """The same loss with gradient caching (Gao et al. 2021), by the library's own mixin."""
    from sentence_transformers.base.losses.gradcache import CachedLossMixin

    class Cached(CachedLossMixin, nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = loss.model
            self.mini_batch_size = mini_batch

        def forward(self, sentence_features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor) -> Any:
            return self.forward_cached(sentence_features, labels)

        def calculate_loss(
            self,
            reps: list[list[torch.Tensor]],
            labels: torch.Tensor | None = None,
            *,
            with_backward: bool = False,
        ) -> torch.Tensor:
            if labels is None:
                raise ValueError("labels are the rows of the pair table, and there are none")
            found = loss.of_vectors([torch.cat(column) for column in reps], labels)
            if with_backward:
                found.backward()  # type: ignore[no-untyped-call]
                found = found.detach()
            return found

    return Cached()


class HeadLoss(nn.Module):
    """A linear head over each text's vector: classes by cross entropy, or one number by squared error."""

    def __init__(self, model: nn.Module, *, dimension: int, classes: int | None) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self.head = nn.Linear(dimension, classes or 1)

    def forward(self, sentence_features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor) -> Any:
        """Mean over texts and columns, a scalar."""
        losses = []
        for features in sentence_features:
            vectors = nn.functional.normalize(self.model(features)["sentence_embedding"].float(), dim=-1)
            found = self.head(vectors)
            if self.classes:
                losses.append(nn.functional.cross_entropy(found, labels.long()))
            else:
                losses.append(nn.functional.mse_loss(found.squeeze(-1), labels.float()))
        return torch.stack(losses).mean()


class Weighted(nn.Module):
    """A loss times a number, so that several tasks can be weighed."""

    def __init__(self, loss: nn.Module, weight: float) -> None:
        super().__init__()
        self.loss = loss
        self.weight = weight
        # The trainer looks for it here, and puts in its place what averages gradients over several processes.
        self.model = loss.model

    def forward(self, sentence_features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor) -> Any:
        """`weight` times the loss."""
        return self.weight * self.loss(sentence_features, labels)
