"""What the trainer is set to: where its runs lie, which pairs it makes, and what the gate asks for.

Apart from the modules that use them, so that `simstream` starts without numpy's and Parquet's imports.
"""

from __future__ import annotations

from pydantic import Field

from schemas.events import Frozen


class TrainingSettings(Frozen):
    """Where runs lie, and what they follow: files, unless an option names others.

    `recipe` is a TOML or JSON file. `golden` and `labelled` are JSON Lines of products `a` and `b` and a
    `label`: pairs that a release is judged by, and pairs that are learned from. With `mine_with_index` hard
    negatives are what the running service finds near, else what the parent's vectors do. A trainer that runs
    by itself has the priority `nice` (0 is that of serving, 19 the lowest) and the `device`, that of the
    encoder if None. `processes` is how many GPUs of this machine train one run, each with batches of its own.
    """

    folder: str = "./var/training"
    recipe: str | None = None
    golden: str | None = None
    labelled: str | None = None
    mine_with_index: bool = False
    nice: int = Field(default=19, ge=0, le=19)
    processes: int = Field(default=1, ge=1, le=64)
    device: str | None = Field(default=None, pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")


class ScheduleSettings(Frozen):
    """When the trainer runs by itself: `simstream train`, and `simstream up` where it is `enabled`.

    Every `check_minutes` it is decided whether to train: after `interval_hours`, on `new_events`, or when the
    population stability index of the catalogue or of what shoppers look at exceeds its bound, or hit@10 of
    the newest steps has surely fallen by more than `hit_rate_fall`. None switches a reason off. Whatever the
    reason, `least_hours` lie between two runs, and each has `least_events` that the last one had not.
    """

    enabled: bool = False
    check_minutes: float = Field(default=10.0, gt=0)
    interval_hours: float | None = Field(default=168.0, gt=0)
    new_events: int | None = Field(default=100_000, ge=1)
    catalogue_drift: float = Field(default=0.25, gt=0)
    embedding_drift: float = Field(default=0.25, gt=0)
    hit_rate_fall: float = Field(default=0.03, ge=0)
    least_hours: float = Field(default=6.0, ge=0)
    least_events: int = Field(default=5_000, ge=1)


class PairSettings(Frozen):
    """Which pairs are made, and what is kept apart for judging.

    At most `max_pairs` are trained on; `texts`, `reviews` and `queries` are the shares of title and
    description, review and product, query and product among them, as far as there are any. The newest
    `window_share` of the sessions is the new window; `unseen_share` of the items and `old_share` of the
    old sessions are for judging. Sets hold at most `max_queries`, ranked among at most `candidates` items.
    """

    max_pairs: int = Field(default=10_000, ge=1)
    distance: int = Field(default=3, ge=1)
    decay: float = Field(default=0.7, gt=0, le=1)
    popularity: float = Field(default=0.5, ge=0, le=1)
    position_bias: float = Field(default=0.5, ge=0, le=2)
    session_gap_minutes: float = Field(default=30.0, gt=0)
    texts: float = Field(default=0.1, ge=0, le=1)
    reviews: float = Field(default=0.1, ge=0, le=1)
    queries: float = Field(default=0.2, ge=0, le=1)
    window_share: float = Field(default=0.2, gt=0, lt=1)
    unseen_share: float = Field(default=0.05, ge=0, lt=1)
    old_share: float = Field(default=0.5, gt=0, lt=1)
    max_queries: int = Field(default=2_000, ge=1)
    candidates: int = Field(default=5_000, ge=2)


class ExposureSettings(Frozen):
    """Whose exposure is looked at: brands, bands of the price, sellers (docs/learning.md).

    A seller is the product's `seller_id`, else its attribute of the name here. Groups of fewer than
    `least_items` items, and those beyond the `most_groups` largest, are counted as one.
    """

    seller_attribute: str = "seller"
    price_bands: int = Field(default=5, ge=2, le=20)
    least_items: int = Field(default=20, ge=1)
    most_groups: int = Field(default=30, ge=1, le=500)


class GateSettings(Frozen):
    """What a candidate has to show. Differences are of hit@10, in shares of queries: 0.02 is two points."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    least_queries: int = Field(default=200, ge=2)
    #: Of pairs that are to stay apart (golden ones with label 0, approved reports), and of golden and old
    #: sets with fewer than `least_queries`: from here on what is surely lost refuses a candidate.
    least_apart: int = Field(default=10, ge=2)
    least_gain: float = Field(default=0.0)
    most_loss: float = Field(default=0.02, ge=0)
    most_slice_loss: float = Field(default=0.05, ge=0)
    #: A group's exposure may move away from its share by such a factor, surely; None: it is reported alone.
    most_exposure_drift: float | None = Field(default=None, gt=1)
    samples: int = Field(default=2_000, ge=100)
