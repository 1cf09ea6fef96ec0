"""model/losses.py: the masked loss is InfoNCE, less what must not count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from model.losses import HeadLoss, MaskedContrastiveLoss, cached
from model.pairs import NegativeMask, PairTable


class Lookup(torch.nn.Module):
    """Stands for an encoder: a text is its row."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(rows, 6)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": self.table(features["input_ids"])}


def table(related: tuple[tuple[int, int], ...] = ()) -> PairTable:
    return PairTable(
        texts=[str(row) for row in range(8)],
        groups=np.arange(8, dtype=np.int64),
        anchors=np.arange(4, dtype=np.int64),
        positives=np.arange(4, 8, dtype=np.int64),
        weights=np.ones(4, dtype=np.float32),
        related=related,
    )


def features(*columns: list[int]) -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": torch.tensor(column)} for column in columns]


def loss_of(pairs: PairTable, model: Lookup, *, masked: bool = True) -> MaskedContrastiveLoss:
    return MaskedContrastiveLoss(
        model, mask=NegativeMask(pairs) if masked else None, weights=pairs.weights, symmetric=False
    )


def test_without_false_negatives_it_is_the_library_loss() -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model, pairs = Lookup(8), table()
    library: Any = MultipleNegativesRankingLoss
    batch = features([0, 1, 2, 3], [4, 5, 6, 7])
    ours = loss_of(pairs, model)(batch, torch.arange(4))
    theirs = library(model)(batch, torch.arange(4))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_a_false_negative_gets_no_gradient_and_without_the_mask_it_does() -> None:
    # Anchors 1, 2 and 3 were all seen with item 4: only its own anchor 0 may move it, and only there.
    pairs = table(related=((1, 4), (2, 4), (3, 4)))
    for masked in (True, False):
        model = Lookup(8)
        batch = features([1, 2, 3], [5, 6, 7], [4, 4, 4])
        pairs_with = PairTable(
            texts=pairs.texts,
            groups=pairs.groups,
            anchors=pairs.anchors,
            positives=pairs.positives,
            weights=pairs.weights,
            related=pairs.related,
            negatives=np.full((4, 1), 4, dtype=np.int64),
        )
        loss_of(pairs_with, model, masked=masked)(batch, torch.arange(1, 4)).backward()
        assert model.table.weight.grad is not None
        moved = float(model.table.weight.grad[4].abs().sum())
        assert (moved == 0) is masked


def test_gradient_caching_changes_neither_loss_nor_gradient() -> None:
    pairs = table(related=((0, 5),))
    grads = []
    for mini_batch in (None, 2):
        model = Lookup(8)
        loss = loss_of(pairs, model)
        whole = loss if mini_batch is None else cached(loss, mini_batch)
        found = whole(features([0, 1, 2, 3], [4, 5, 6, 7]), torch.arange(4))
        found.backward()
        assert model.table.weight.grad is not None
        grads.append((found.item(), model.table.weight.grad))
    assert grads[0][0] == pytest.approx(grads[1][0], rel=1e-6)
    torch.testing.assert_close(grads[0][1], grads[1][1])


def test_a_weight_of_nothing_takes_a_pair_out() -> None:
    pairs = table()
    pairs.weights[:] = [1, 0, 0, 0]
    model = Lookup(8)
    loss_of(pairs, model)(features([0, 1, 2, 3], [4, 5, 6, 7]), torch.arange(4)).backward()
    assert model.table.weight.grad is not None
    assert model.table.weight.grad[1].abs().sum() == 0
    assert model.table.weight.grad[0].abs().sum() > 0


@pytest.mark.parametrize(("classes", "labels"), [(3, [0, 1, 2]), (None, [0.5, -1.0, 2.0])])
def test_a_head_learns_classes_or_a_number(classes: int | None, labels: list[float]) -> None:
    model = Lookup(8)
    loss = HeadLoss(model, dimension=6, classes=classes)
    optimiser = torch.optim.Adam([*model.parameters(), *loss.head.parameters()], lr=0.2)
    values = []
    for _ in range(60):
        found = loss(features([0, 1, 2]), torch.tensor(labels))
        optimiser.zero_grad()
        found.backward()
        optimiser.step()
        values.append(found.item())
    assert values[-1] < 0.2 * values[0]
