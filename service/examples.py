"""Answers as they look, for the OpenAPI document; a test holds them to the models."""

from __future__ import annotations

import json
from typing import Any

_DIMENSIONS: dict[str, Any] = {
    "content": {"score": 0.7312, "weight": 1.0},
    "lexical": {"score": 0.4127, "weight": 1.5},
    "behaviour": {"score": 0.2201, "weight": 0.83},
}
_ITEM: dict[str, Any] = {
    "item_id": "B00Y",
    "revision": 1732400000000000,
    "title": "Speedcross trail running shoe",
    "brand": "Salomon",
    "category": ["Sport", "Shoes"],
    "price": "80",
    "currency": "EUR",
    "in_stock": True,
    "image_url": None,
    "group_id": None,
    "rating": {"mean": 4.4, "count": 31},
    "opinions": ["comfort: good", "fit: bad"],
}
ANSWER: dict[str, Any] = {
    "items": [{"item_id": "B00Y", "score": 0.4708, "dimensions": _DIMENSIONS, "item": _ITEM}],
    "release_id": "all-minilm-l6-v2-1a2b3c",
    "took_ms": 6.2,
    "notes": [],
}
TRENDING: dict[str, Any] = {
    "items": [{"item_id": "B00Y", "score": 1.0, "dimensions": {}, "item": _ITEM}],
    "release_id": "all-minilm-l6-v2-1a2b3c",
    "took_ms": 3.1,
    "notes": [],
    "next_offset": 1,
}
BATCH: dict[str, Any] = {
    "answers": [
        {"answer": ANSWER, "problem": None},
        {
            "answer": None,
            "problem": {
                "type": "about:blank",
                "title": "Unknown item",
                "status": 404,
                "detail": "no item 'B00Z' in the catalogue",
                "errors": [],
            },
        },
    ],
    "took_ms": 11.8,
}
ITEM: dict[str, Any] = {
    **{name: value for name, value in _ITEM.items() if name != "rating"},
    "indexed_revision": 1732400000000000,
    "occurred_at": "2026-11-24T08:00:00Z",
    "description": "Grip for mud and rock.",
    "attributes": {"colour": "black"},
    "seller_id": None,
    "condition": "new",
    "gtin": None,
    "language": "en",
    "rating": {
        "mean": 4.4,
        "count": 31,
        "histogram": {"0": 0, "1": 1, "2": 1, "3": 3, "4": 6, "5": 20},
        "bayesian_mean": 4.34,
    },
    "counters": {"view": 120, "purchase": 3},
    "behaviour": None,
    "dimensions": {"content": {"updated_at": "2026-11-24T08:00:01Z", "fingerprint": "5f1c0a9be3d2"}},
}
PRICE: dict[str, Any] = {
    "item_id": "B00X",
    "price": "100",
    "currency": "EUR",
    "pack": 1,
    "condition": "new",
    "outlier": True,
    "score": 3.1,
    "ratio": 2.43,
    "position": 1.0,
    "band": {
        "currency": "EUR",
        "low": 31.5,
        "quarter": 36.0,
        "median": 41.0,
        "three_quarters": 47.5,
        "high": 55.0,
        "spread": 0.286,
        "items": 34,
    },
    "basis": "same pack, same condition",
    "evidence": "100 EUR is 2.43 times what 34 comparable items cost (same pack, same condition: half of them"
    " 36.00 to 47.50), 3.1 standard deviations above",
    "comparables": [
        {
            "item_id": "B00Y",
            "title": "Speedcross trail running shoe",
            "price": "80",
            "unit_price": 80.0,
            "pack": 1,
            "condition": "new",
            "similarity": 0.4708,
        }
    ],
    "release_id": "all-minilm-l6-v2-1a2b3c",
    "took_ms": 9.4,
}
RELATIONS: dict[str, Any] = {
    "item_id": "B00X",
    "substitutes": [
        {
            "item_id": "B00Y",
            "basis": "looked at together",
            "together": 214,
            "support": 0.003567,
            "confidence": 0.11,
            "confidence_back": 0.16,
            "lift": 6.2,
            "lift_low": 5.1,
            "later": None,
            "similarity": 0.71,
            "item": _ITEM,
        }
    ],
    "complements": [
        {
            "item_id": "B00Z",
            "basis": "bought together",
            "together": 38,
            "support": 0.0019,
            "confidence": 0.19,
            "confidence_back": 0.07,
            "lift": 4.3,
            "lift_low": 2.6,
            "later": 0.84,
            "similarity": 0.22,
            "item": _ITEM,
        }
    ],
    "bundles": [{"items": [_ITEM, _ITEM], "together": 12, "confidence": 0.06}],
    "baskets": 200,
    "visits": 1945,
    "mined_at": "2026-11-24T08:00:00Z",
    "evidence": "2 items beyond chance, from 200 baskets and 1945 visits with the item, of 20000 and 60000",
    "release_id": "all-minilm-l6-v2-1a2b3c",
    "took_ms": 3.2,
}
OPINIONS: dict[str, Any] = {
    "item_id": "B00X",
    "head": "opinions-5c1d9e0b7a64f283",
    "reviews": 37,
    "aspects": [
        {
            "aspect": "noise",
            "sentiment": 0.61,
            "count": 14,
            "positive": 12,
            "negative": 2,
            "tendency": "good",
            "evidence": [
                {"review_id": "r1", "text": "So quiet that I checked whether it was on.", "sentiment": 0.84}
            ],
        }
    ],
    "evidence": "1 aspects in 37 reviews",
    "release_id": "all-minilm-l6-v2-1a2b3c",
    "took_ms": 2.1,
}
REPORT: dict[str, Any] = {"seed": "B00X", "item_id": "B00Y", "reason": "not_similar", "note": "a toy of it"}
REPORTED: dict[str, Any] = {"report_id": "7a1f0c53b2d94e68", "status": "pending", "reports": 1}
RELEASE: dict[str, Any] = {
    "release_id": "all-minilm-l6-v2-1a2b3c",
    "collection": "items__all-minilm-l6-v2-1a2b3c__1",
    "model": "sentence-transformers/all-MiniLM-L6-v2",
    "dimension": 384,
    "points": 20000,
    "created_at": "2026-11-24T08:00:00Z",
    "parent": None,
    "figures": {},
}
PUBLISHED: dict[str, Any] = {"acknowledged": 1}
EVENT: dict[str, Any] = {
    "kind": "user_event",
    "event_id": "e1",
    "type": "view",
    "user_id": "u1",
    "product_id": "B00X",
    "occurred_at": "2026-11-24T08:00:00Z",
}
PRODUCT: dict[str, Any] = {
    "kind": "product_upserted",
    "product_id": "B00X",
    "occurred_at": "2026-11-24T08:00:00Z",
    "title": "Norda 001 trail running shoe",
    "brand": "Norda",
    "category": ["Sport", "Shoes"],
    "price": "100",
    "currency": "EUR",
    "in_stock": True,
}
REVIEW: dict[str, Any] = {
    "kind": "review_posted",
    "review_id": "r1",
    "product_id": "B00X",
    "user_id": "u1",
    "occurred_at": "2026-11-24T08:00:00Z",
    "rating": 4,
    "text": "Great grip in mud, runs small.",
}

_UPDATE: dict[str, Any] = {
    "item_id": "B00X",
    "title": "Norda 001 trail running shoe",
    "dimensions": ["context"],
    "encoder_calls": 0,
    "deleted": False,
    "revision": 1732400000000000,
    "occurred_at": "2026-11-24T08:00:00Z",
    "searchable_at": "2026-11-24T08:00:00.027000Z",
    "freshness_ms": 27.0,
}
UPDATES: dict[str, Any] = {"updates": [_UPDATE], "passed_over": 0}
UPDATES_STREAM = f"event: updates\ndata: {json.dumps(UPDATES)}\n\n"
PIPELINE: dict[str, Any] = {
    "freshness": [
        {"name": "all", "updates": 2, "p50_ms": 27.0, "p95_ms": 84.0, "p99_ms": 84.0},
        {"name": "text", "updates": 1, "p50_ms": 84.0, "p95_ms": 84.0, "p99_ms": 84.0},
        {"name": "other", "updates": 1, "p50_ms": 27.0, "p95_ms": 27.0, "p99_ms": 27.0},
    ],
    "window_seconds": 12.5,
    "encoder_calls": 1,
    "consumers": [
        {
            "consumer": "products",
            "topic": "catalog.products",
            "lag_records": 0,
            "records": 1000,
            "dead_letters": 1,
        }
    ],
    "dead_letters": [
        {
            "identity": "b9Zc3xq1TfS:0:17",
            "topic": "catalog.products",
            "error": "title: is required",
            "died_at": "2026-11-24T08:00:00+00:00",
            "redriven": False,
        }
    ],
    "notes": [],
}
RELEASES: dict[str, Any] = {
    "releases": [
        {
            "release_id": "all-minilm-l6-v2-1a2b3c",
            "collection": "items__all-minilm-l6-v2-1a2b3c__1",
            "state": "live",
            "live": True,
            "searchable": True,
            "since": "2026-11-24T08:00:00Z",
            "reason": "",
            "model": "sentence-transformers/all-MiniLM-L6-v2",
            "parent": None,
            "created_at": "2026-11-24T08:00:00Z",
            "verdict": None,
        }
    ],
    "notes": [],
}
RECENT: dict[str, Any] = {
    "items": [
        {"item_id": "B00Y", "type": "cart", "at": "2026-11-24T08:00:00Z", "bought": False, "item": _ITEM}
    ]
}
MAP: dict[str, Any] = {
    "places": [{"item_id": "B00X", "x": -1.0, "y": 0.0}, {"item_id": "B00Y", "x": 1.0, "y": 0.0}],
    "shown": 1.0,
    "release_id": "all-minilm-l6-v2-1a2b3c",
    "took_ms": 1.9,
}
