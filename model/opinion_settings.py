"""Settings of heads that hear opinions (model/opinion_training.py).

Reads, writes  nothing
"""

from __future__ import annotations

from pydantic import Field

from schemas.events import Frozen

#: Reviews are held back in as many parts to see what a head says of what it has not seen.
FOLDS = 5


class HeadSettings(Frozen):
    """Where heads are kept (as releases are), and how one is made.

    `aspects` names a YAML file; None takes the one that comes along. `near` is the least cosine of a clause
    to a phrase of its aspect. `strength` is the inverse of the penalty on what is learned. `least` reviews of
    either answer are needed, and a head is kept only if its area under the ROC curve, on reviews it has not
    seen, is at least `least_auc`.
    """

    url: str = "./var/opinions"
    cache: str = "./var/cache/opinions"
    aspects: str | None = None
    near: float = Field(default=0.3, ge=-1, le=1)
    strength: float = Field(default=1.0, gt=0)
    most_reviews: int = Field(default=20_000, ge=100)
    least: int = Field(default=30, ge=FOLDS)
    least_auc: float = Field(default=0.7, ge=0, le=1)
