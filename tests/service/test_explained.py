"""service/explained.py: what each of several seeds adds to a hit."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.vectors import BEHAVIOUR, CONTENT, LEXICAL, SparseVector, Vector
from service.explained import SeedParts
from service.fusion import Asked, Scored
from service.seeds import About, Part, combined_dense, combined_sparse

IDF = {index: 0.5 + index / 10 for index in range(20)}


def sparse(draw: np.random.Generator) -> SparseVector:
    indices = sorted(draw.choice(20, size=8, replace=False).tolist())
    return SparseVector(tuple(indices), tuple(draw.uniform(0.1, 1, size=8).tolist()))


@pytest.mark.parametrize("seed", range(20))
def test_the_parts_of_the_seeds_add_up_to_the_weighted_scores_of_the_hit(seed: int) -> None:
    draw = np.random.default_rng(seed)
    parts = []
    for weight in (1.0, 0.4, -0.3):
        vectors: dict[str, Vector] = {CONTENT: draw.standard_normal(4).tolist(), LEXICAL: sparse(draw)}
        if weight != 0.4:  # one seed that nobody touched
            vectors[BEHAVIOUR] = sparse(draw)
        parts.append(Part(weight, vectors, About(words="")))
    hit: dict[str, Vector] = {
        CONTENT: draw.standard_normal(4).tolist(),
        LEXICAL: sparse(draw),
        BEHAVIOUR: sparse(draw),
    }

    dense = combined_dense([(part.weight, part.vectors[CONTENT]) for part in parts])  # type: ignore[misc]
    assert dense is not None
    asked = {CONTENT: Asked(CONTENT, dense[0], 1.0, norm=dense[1])}
    scores = {CONTENT: float(np.dot(dense[0], np.asarray(hit[CONTENT])))}
    for name, weigh in ((LEXICAL, IDF), (BEHAVIOUR, dict.fromkeys(range(20), 1.0))):
        having = [(part.weight, part.vectors[name]) for part in parts if name in part.vectors]
        combined = combined_sparse(having)  # type: ignore[arg-type]
        assert combined is not None
        query, norm = combined
        asked[name] = Asked(name, query, 1.0, unit=0.7, norm=norm)
        held = hit[name]
        assert isinstance(held, SparseVector)
        other = dict(zip(held.indices, held.values, strict=True))
        pairs = zip(query.indices, query.values, strict=True)
        scores[name] = sum(value * other.get(index, 0.0) * weigh[index] for index, value in pairs) / 0.7

    weights = {CONTENT: 1.0, LEXICAL: 1.5, BEHAVIOUR: 0.6}
    owed = SeedParts(parts, asked, IDF).of(Scored("x", 0.0, scores, weights, {}), hit)
    assert len(owed) == 3
    assert sum(owed) == pytest.approx(sum(weights[name] * scores[name] for name in scores))


def test_a_hit_whose_vectors_are_gone_meanwhile_owes_nothing() -> None:
    parts = [Part(1.0, {CONTENT: [1.0, 0.0]}, About(words="")), Part(1.0, {}, About(words=""))]
    asked = {CONTENT: Asked(CONTENT, [1.0, 0.0], 1.0)}
    scored = Scored("x", 0.5, {CONTENT: 0.5}, {CONTENT: 1.0}, {})
    assert SeedParts(parts, asked, {}).of(scored, {}) == [0.0, 0.0]
