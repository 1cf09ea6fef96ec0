"""Chinese by its characters, beside words that a segmenter cuts: which finds the same thing more often.

Products of one cluster of `taobao-zh` are the same thing, listed by several sellers. Each product asks, by
its lexical vector and in the index's own engine, for the ten nearest of all the others; recall@10 is the
share of its cluster among them. The rival is TF-IDF over the words that jieba's algorithm and dictionary find
(rjieba), cosine, over the same fields of the same products.

Clusters are split in two by lot. On one half the rival chooses its fields, its way of cutting and its
counting, and the recipe's neighbours are tried; the other half is reported. Then the same products share an
index with an English catalogue (abt-buy), which is asked as well.

Reads   taobao-zh and abt-buy in the data folder
Writes  an index that goes away
Never   lets the half that is reported choose anything
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import rjieba
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from adapters.index_edge import EdgeIndex
from benchmarks.harness import Figure, Report, Skipped
from benchmarks.matching import EVERY_PAIR, matches, read_products
from benchmarks.quality_sets import taobao
from model.text import FieldUse, ProductText, TextSettings, attribute_text, normalised
from schemas.events import Product
from schemas.vectors import LEXICAL, CollectionSpec, DimensionQuery, FusedQuery, Point, SparseVector

NAME = "languages"
CHINESE, ENGLISH = "taobao-zh", "abt-buy"
COLLECTION = "items__bench__1"
K = 10
SEED = 6
DRAWS = 1_000
#: A small run asks for every eighth product.
SMALL_SHARE = 8

Products = Mapping[str, Product]
Gold = Mapping[str, frozenset[str]]
Values = NDArray[np.float64]

#: Recipes that are tried on the choosing half; the first is the product's own.
RECIPES: Mapping[str, TextSettings] = {
    "1- and 2-grams": TextSettings(),
    "1-grams": TextSettings(unspaced_gram_sizes=(1,)),
    "2-grams": TextSettings(unspaced_gram_sizes=(2,)),
    "1- to 3-grams": TextSettings(unspaced_gram_sizes=(1, 2, 3)),
    "title once": TextSettings(title=FieldUse(content_chars=400, lexical_chars=1_000)),
    "title 6 times": TextSettings(title=FieldUse(content_chars=400, lexical_chars=1_000, times=6)),
}
#: The control: Chinese cut as if it had spaces, into the 4-grams of whole runs.
AS_IF_SPACED = TextSettings(unspaced_gram_sizes=(4,))


def run(*, small: bool, data: Path | None) -> Report:
    """Both ways of cutting on both halves, the controls, and the mixed catalogue."""
    missing = [name for name in (CHINESE, ENGLISH) if data is None or not (data / name).is_dir()]
    if data is None or missing:
        raise Skipped(f"needs {', '.join(missing)} in the data folder: --data or SIMSTREAM_DATA")
    products, choose, report = _halves(data, every=SMALL_SHARE if small else 1)
    print(
        f"{len(products)} products; {len(choose)} ask while choosing, {len(report)} are reported", flush=True
    )

    tried = {} if small else {name: _lexical(one, products, choose).mean() for name, one in RECIPES.items()}
    for name, value in tried.items():
        print(f"choosing half, lexical, {name}: {value:.4f}", flush=True)
    rivals = {
        f"{fields}, {cut}, {counting}": _segmented(products, choose, fields, cut, counting)
        for fields, cut, counting in itertools.product(FIELDS, CUTS, COUNTINGS)
        if not small or fields == "all fields"
    }
    for name, values in rivals.items():
        print(f"choosing half, segmented, {name}: {values.mean():.4f}", flush=True)
    best = max(rivals, key=lambda name: rivals[name].mean())
    fields, cut, counting = best.split(", ")

    found = _neighbours(TextSettings(), products, report)
    ours = _recalls(report, found)
    theirs = _segmented(products, report, fields, cut, counting)
    spaced = _lexical(AS_IF_SPACED, products, report)
    low, high = _interval(ours - theirs, report)
    figures = [
        Figure("Chinese recall@10, lexical", _shown(ours), "", kind="quality", headline=True),
        Figure(
            "Chinese recall@10, segmented TF-IDF",
            _shown(theirs),
            "",
            kind="quality",
            headline=True,
            note=best,
        ),
        Figure(
            "Chinese recall@10, lexical over segmented",
            round(float(np.mean(ours - theirs)), 4),
            "",
            target=0.0001,
            kind="quality",
            note=f"95 % of draws {low:.3f} to {high:.3f}",
        ),
        Figure(
            "Chinese recall@10, lexical over segmented, low end",
            round(low, 4),
            "",
            target=0.0,
            kind="quality",
        ),
        Figure(
            "control: recall@10 without 1- and 2-grams",
            _shown(spaced),
            "",
            target=_shown(theirs),
            direction="at most",
            kind="quality",
        ),
        Figure(
            "control: recall@10 with the answers dealt at random",
            _shown(_recalls(_dealt(report), found)),
            "",
            target=0.02,
            direction="at most",
            kind="quality",
        ),
        *(
            Figure(f"choosing half, {name}", round(float(value), 4), "", kind="quality")
            for name, value in tried.items()
        ),
        *_mixed(data, products, report, alone=ours, small=small),
    ]
    if tried:
        assert max(tried, key=lambda name: tried[name]) == next(iter(RECIPES)), "another recipe is better"
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "seed": SEED,
            "products": len(products),
            "asked_choosing": len(choose),
            "asked_reported": len(report),
            "rival": best,
        },
        data=f"{CHINESE}, one half of its clusters chooses, the other is reported; {ENGLISH} beside it",
        skipped=["the recipe's neighbours, the rival's titles alone, questions in English: in full only"]
        if small
        else (),
    )


def _halves(data: Path, *, every: int) -> tuple[Products, Gold, Gold]:
    """The catalogue, and who asks for what: on the half that chooses, on the one that is reported."""
    found = taobao(data)
    draw = Random(SEED)
    halves: tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]] = ({}, {})
    side_of: dict[frozenset[str], int] = {}
    for question in found.questions["same cluster"]:
        asks = str(question.seeds[0].item_id)
        cluster = question.relevant | {asks}
        side = side_of.get(cluster)
        if side is None:
            side = side_of[cluster] = draw.randrange(2)
        halves[side][asks] = question.relevant
    choose, report = ({one: half[one] for one in sorted(half)[::every]} for half in halves)
    return {one.product_id: one for one in found.contents.products}, choose, report


# --- ours ------------------------------------------------------------------------------------------


@contextmanager
def _indexed(
    recipe: ProductText, products: Products
) -> Iterator[tuple[EdgeIndex, Mapping[str, SparseVector]]]:
    """An index with the lexical vectors of these, and the vectors."""
    vectors = {name: recipe.lexical(product) for name, product in products.items()}
    with tempfile.TemporaryDirectory(prefix="simstream-bench-") as folder:
        index = EdgeIndex(Path(folder))
        index.ensure_collection(COLLECTION, CollectionSpec(dense={}))
        index.upsert(
            COLLECTION,
            [Point(name, {LEXICAL: vector}, {"product_id": name}) for name, vector in vectors.items()],
            ticket=1,
        )
        yield index, vectors
        index.close()


def _found(index: EdgeIndex, vector: SparseVector, *, but: str = "") -> list[str]:
    """The ten nearest, without the one that asks."""
    query = FusedQuery((DimensionQuery(LEXICAL, vector, 1.0, candidates=K + 1),), limit=K + 1)
    return [one.product_id for one in index.candidates(COLLECTION, query) if one.product_id != but][:K]


def _neighbours(settings: TextSettings, products: Products, gold: Gold) -> dict[str, list[str]]:
    with _indexed(ProductText(settings), products) as (index, vectors):
        return {name: _found(index, vectors[name], but=name) for name in gold}


def _lexical(settings: TextSettings, products: Products, gold: Gold) -> Values:
    return _recalls(gold, _neighbours(settings, products, gold))


def _recalls(gold: Gold, found: Mapping[str, Sequence[str]]) -> Values:
    """The share of each one's answers that it found, in the order of `gold`."""
    return np.array([len(wanted & set(found[name])) / len(wanted) for name, wanted in gold.items()])


# --- the rival -------------------------------------------------------------------------------------

FIELDS: Mapping[str, Callable[[Product], str]] = {
    "titles": lambda product: product.title,
    "all fields": lambda product: " ".join(
        [product.title, *product.category, attribute_text(product.attributes)]
    ),
}
CUTS: Mapping[str, Callable[[str], list[str]]] = {
    "words": rjieba.cut,
    "words and their parts": rjieba.cut_for_search,
}
COUNTINGS = {"counts": False, "1 + ln counts": True}


def _segmented(products: Products, gold: Gold, fields: str, cut: str, counting: str) -> Values:
    """TF-IDF over a segmenter's words, exact cosines."""
    matrix = _matrix(tuple(products.values()), fields, cut, counting)
    names = list(products)
    place = {name: number for number, name in enumerate(names)}
    rows = [place[name] for name in gold]
    scores = (matrix[rows] @ matrix.T).toarray()
    scores[np.arange(len(rows)), rows] = -1.0
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    return _recalls(
        gold, {name: [names[one] for one in found] for name, found in zip(gold, nearest, strict=True)}
    )


def _matrix(products: Sequence[Product], fields: str, cut: str, counting: str) -> Any:
    """Unit rows, one a product."""
    words = [
        [word for word in CUTS[cut](normalised(FIELDS[fields](product))) if any(map(str.isalnum, word))]
        for product in products
    ]
    counted: Any = TfidfVectorizer(analyzer=list, sublinear_tf=COUNTINGS[counting])
    return counted.fit_transform(words)


# --- controls, the mixed catalogue -----------------------------------------------------------------


def _dealt(gold: Gold) -> Gold:
    """The same questions with somebody else's answers."""
    answers = list(gold.values())
    Random(SEED).shuffle(answers)
    return dict(zip(gold, answers, strict=True))


def _mixed(data: Path, products: Products, gold: Gold, *, alone: Values, small: bool) -> list[Figure]:
    """Both languages in one index: Chinese asks; in full English too, and was asked by itself before."""
    recipe, english = ProductText(), read_products(data, ENGLISH, "b")
    offers = {} if small else read_products(data, ENGLISH, "a")
    pairs = {
        name: frozenset(wanted)
        for name, wanted in matches(data, ENGLISH, EVERY_PAIR).items()
        if name in offers
    }
    before = alone[:0]
    if pairs:
        with _indexed(recipe, english) as (index, _):
            before = _recalls(pairs, {name: _found(index, recipe.lexical(offers[name])) for name in pairs})
    both = {**{f"en {name}": one for name, one in english.items()}, **products}
    with _indexed(recipe, both) as (index, vectors):
        chinese = {name: _found(index, vectors[name], but=name) for name in gold}
        asked = {name: _found(index, recipe.lexical(offers[name])) for name in pairs}
    lost = {"Chinese": alone - _recalls(gold, chinese)}
    if pairs:
        answered = {name: [one.removeprefix("en ") for one in found] for name, found in asked.items()}
        lost["English"] = before - _recalls(pairs, answered)
    wrong = [one.startswith("en ") for found in chinese.values() for one in found]
    wrong += [not one.startswith("en ") for found in asked.values() for one in found]
    return [
        *(
            Figure(
                f"{language} recall@10 lost in a catalogue of both languages",
                round(float(np.mean(values)), 4),
                "",
                target=0.005,
                direction="at most",
                kind="quality",
            )
            for language, values in lost.items()
        ),
        Figure(
            "hits of the other language among the first ten",
            round(float(np.mean(wrong)), 4),
            "",
            kind="quality",
        ),
    ]


def _interval(differences: Values, gold: Gold) -> tuple[float, float]:
    """95 % of the means of clusters drawn with replacement (Efron 1979); questions of one are no two."""
    clusters = [wanted | {name} for name, wanted in gold.items()]
    order = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    owner = np.array([order[cluster] for cluster in clusters])
    sums, sizes = np.bincount(owner, differences), np.bincount(owner)
    drawn = np.random.default_rng(SEED).integers(len(order), size=(DRAWS, len(order)))
    low, high = np.percentile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _shown(values: Values) -> float:
    return round(float(values.mean()), 4)
