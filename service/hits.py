"""What an answer shows of an item: from the payload of its point. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.api import HitItem, HitRating


def hit_item(product_id: str, payload: Mapping[str, Any]) -> HitItem:
    """The item of a hit, from its payload (schemas.items.live_payload)."""
    return HitItem(
        item_id=product_id,
        revision=payload["revision"],
        title=payload["title"],
        brand=payload.get("brand_name"),
        category=list(payload.get("category_path") or ()),
        price=payload.get("price_exact"),
        currency=payload.get("currency"),
        in_stock=payload.get("in_stock"),
        image_url=payload.get("image_url"),
        group_id=payload.get("group_id"),
        rating=_rating(payload),
        opinions=list(payload.get("opinions") or ()),
    )


def _rating(payload: Mapping[str, Any]) -> HitRating | None:
    mean, count = payload.get("rating_mean"), payload.get("rating_count")
    return HitRating(mean=mean, count=count) if mean is not None and count else None


def rounded(score: float) -> float:
    """Six digits. A hit can share more than the seed does with itself (rare words, repeated): shown as 1."""
    return round(min(score, 1.0), 6)
