"""What a release of the model is: its manifest, written last, after which nothing of it ever changes.

A release is a folder of files as the sentence-transformers library lays them out, plus `manifest.json`.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from schemas.events import Frozen

MANIFEST_NAME = "manifest.json"

#: Part of collection names (`items__<release_id>__<n>`), so an underscore has no place in it.
ReleaseId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$")]
Pooling = Literal["mean", "cls", "last"]


#: What could run when it is opened: code, and pickles by the names that libraries give them.
_RUNS = frozenset(
    {".py", ".pyc", ".so", ".dll", ".sh", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}
)


def _inside(name: str) -> str:
    """Refuse names that could leave the release's folder, hide in it, or stand for something that runs."""
    parts = PurePosixPath(name).parts
    if not parts or name != "/".join(parts) or any(part.startswith(".") for part in parts) or "\\" in name:
        raise ValueError("expected a relative path with '/' between its parts, none of them hidden or '..'")
    if name == MANIFEST_NAME or name.startswith("/"):
        raise ValueError("expected a file of the release other than its manifest, relative to its folder")
    if PurePosixPath(name).suffix.lower() in _RUNS:
        raise ValueError(f"a release carries neither code nor pickles, and {name!r} is named like one")
    return name


FileName = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_inside)]


class FileEntry(Frozen):
    """One file of a release."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]


class EncoderConfig(Frozen):
    """How the model turns text into one vector. Vectors are always scaled to unit length.

    `max_length` is in tokens, special ones included. Prompts are put in front of the text as they are;
    without `include_prompt` their tokens are left out of a mean. `lower_case` is applied before tokenising.
    `dimension` is how many numbers of a vector are kept, before it is scaled; None: all.
    """

    pooling: Pooling
    max_length: Annotated[int, Field(ge=2)]
    query_prompt: str = ""
    passage_prompt: str = ""
    include_prompt: bool = True
    lower_case: bool = False
    dimension: Annotated[int, Field(ge=1)] | None = None


class FigureOf(Frozen):
    """hit@10 of one set (or one slice of it) under the live release and the candidate.

    `low` and `high` bound the difference, by bootstrap.
    """

    name: str
    slice: str = ""
    queries: int
    before: float
    after: float
    low: float
    high: float
    ndcg_before: float
    ndcg_after: float


class ExposureOf(Frozen):
    """How much a group of items is shown among neighbours, over its `share` of the items: 1 is parity.

    `before` under the live release, `after` under the candidate; `low` and `high` bound the difference.
    """

    group: str
    items: int
    share: float
    before: float
    after: float
    low: float
    high: float


class Parity(Frozen):
    """Exposure by one kind of groups (brand, price band, seller) in so many lists of ten neighbours.

    The Gini coefficient is 0 where every group is shown as much as its share; `low` and `high` bound its
    difference.
    """

    kind: str
    lists: int
    gini_before: float
    gini_after: float
    low: float
    high: float
    groups: list[ExposureOf] = []


class Verdict(Frozen):
    """What the gate said of a candidate; without `passed` the reasons say why not."""

    passed: bool
    reasons: list[str] = []
    figures: list[FigureOf] = []
    exposure: list[Parity] = []


class Training(Frozen):
    """How a candidate came to be: enough to make it again."""

    run: str
    recipe: dict[str, Any]
    data: dict[str, Any] = {}
    versions: dict[str, str] = {}
    seconds: Annotated[float, Field(ge=0)] = 0.0
    steps: Annotated[int, Field(ge=0)] = 0
    curves: list[dict[str, float]] = []


class Manifest(Frozen):
    """Everything a process needs to run a release, and to check that it has it whole.

    `text` holds the settings of the text recipe, `figures` what was measured when it was made, `training`
    how it was trained, `verdict` what the gate said of it.
    """

    format: Literal[1] = 1
    release_id: ReleaseId
    created_at: AwareDatetime
    base_model: str
    parent: ReleaseId | None = None
    dimension: Annotated[int, Field(ge=1)]
    encoder: EncoderConfig
    text: dict[str, Any] = {}
    files: Annotated[dict[FileName, FileEntry], Field(min_length=1)]
    figures: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}
    #: Of a release that was trained here; None of the unchanged base model.
    training: Training | None = None
    verdict: Verdict | None = None
